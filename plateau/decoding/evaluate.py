"""From hypotheses to scores and files; the same for every recipe."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from plateau.data.tokens import Tokenizer
from plateau.decoding.scoring import CtmEntry, score, write_ctm, write_scores


class TimedTokens(Protocol):
    """A hypothesis: token ids, and the encoder frame of each."""

    tokens: tuple[int, ...]
    frames: tuple[int, ...]


@dataclass(frozen=True)
class Decoded:
    """An utterance with its transcript and what the model heard."""

    id: str
    text: str
    hypothesis: TimedTokens


def evaluate(
    decode_dir: Path,
    decoded: list[Decoded],
    tokenizer: Tokenizer,
    frame_shift: float,
) -> dict[str, float]:
    """Score, and write `ref.trn`, `hyp.trn`, `wer.txt` and `hyp.ctm` into a decode directory.

    The ctm has a line per token, with times in seconds from the start of the utterance.

    Args:
        decode_dir: where to write
        decoded: the utterances of a set
        tokenizer: turns tokens into words
        frame_shift: seconds between two frames of the encoder

    Returns:
        word and character error rate in percent
    """
    decoded = sorted(decoded, key=lambda d: d.id)
    references = {d.id: tokenizer.reference(d.text) for d in decoded}
    hypotheses = {d.id: tokenizer.decode(d.hypothesis.tokens) for d in decoded}
    scores = score(references, hypotheses)
    write_scores(decode_dir, scores)
    write_ctm(
        decode_dir / "hyp.ctm",
        (
            CtmEntry(d.id, frame * frame_shift, frame_shift, tokenizer.tokens[token])
            for d in decoded
            for token, frame in zip(d.hypothesis.tokens, d.hypothesis.frames, strict=True)
        ),
    )
    return {"wer": round(scores.wer, 3), "cer": round(scores.cer, 3)}
