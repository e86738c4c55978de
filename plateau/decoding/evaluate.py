"""From hypotheses to scores and files; the same for every recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from plateau.data.features import frame_times
from plateau.data.tokens import Tokenizer
from plateau.decoding.scoring import CtmEntry, score, write_ctm, write_scores
from plateau.io import write_text


class Hypothesis(Protocol):
    """Token ids, the encoder frame of each, and a score."""

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    score: float  # natural log probability


@dataclass(frozen=True)
class Decoded:
    """An utterance with its transcript and what the model heard, which is the first hypothesis."""

    id: str
    text: str
    hypotheses: Sequence[Hypothesis]  # best first, at least one

    @property
    def best(self) -> Hypothesis:
        """What is scored."""
        return self.hypotheses[0]


def evaluate(
    decode_dir: Path,
    decoded: list[Decoded],
    tokenizer: Tokenizer,
    subsampling_factor: int,
    nbest: int = 0,
) -> dict[str, float]:
    """Score, and write `ref.trn`, `hyp.trn`, `wer.txt` and `hyp.ctm` into a decode directory.

    The ctm has a line per token, with times in seconds from the start of the utterance.

    With ``nbest``, and if an utterance has more than one hypothesis, `nbest.txt` has lines
    `<utterance> <rank from 1> <score> <words>`. Of hypotheses with the same words the best one is
    there.

    Args:
        decode_dir: where to write
        decoded: the utterances of a set
        tokenizer: turns tokens into words
        subsampling_factor: feature frames for each frame of the encoder
        nbest: hypotheses of an utterance in `nbest.txt`, at most

    Returns:
        word and character error rate in percent
    """
    decoded = sorted(decoded, key=lambda d: d.id)
    references = {d.id: tokenizer.reference(d.text) for d in decoded}
    hypotheses = {d.id: tokenizer.decode(d.best.tokens) for d in decoded}
    scores = score(references, hypotheses)
    write_scores(decode_dir, scores)
    write_ctm(
        decode_dir / "hyp.ctm",
        (
            CtmEntry(d.id, start, end - start, tokenizer.tokens[token])
            for d in decoded
            for token, frame in zip(d.best.tokens, d.best.frames, strict=True)
            for start, end in [frame_times(frame, subsampling_factor)]
        ),
    )
    nbest_file = decode_dir / "nbest.txt"
    nbest_file.unlink(missing_ok=True)  # of a decoding before
    if nbest and any(len(d.hypotheses) > 1 for d in decoded):
        _write_nbest(nbest_file, decoded, tokenizer, nbest)
    return {"wer": round(scores.wer, 3), "cer": round(scores.cer, 3)}


def _write_nbest(path: Path, decoded: list[Decoded], tokenizer: Tokenizer, nbest: int) -> None:
    lines = []
    for d in decoded:
        scores: dict[str, float] = {}  # by words, best first
        for hypothesis in d.hypotheses:
            scores.setdefault(tokenizer.decode(hypothesis.tokens), hypothesis.score)
        for rank, words in enumerate(list(scores)[:nbest], start=1):
            lines.append(f"{d.id} {rank} {scores[words]:.4f} {words}".rstrip() + "\n")
    write_text(path, "".join(lines))
