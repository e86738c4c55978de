"""From hypotheses to scores and files; the same for every recipe."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from plateau.data.tokens import Tokenizer
from plateau.decoding.files import (
    Interval,
    emitted,
    for_sclite,
    has_marks,
    in_milliseconds,
    spelt_words,
    write_ctm,
)
from plateau.decoding.scoring import score, write_scores
from plateau.decoding.stm import Segment, write_stm
from plateau.io import write_text


class Hypothesis(Protocol):
    """Token ids, the encoder frame of each, how sure it is, and a score."""

    tokens: tuple[int, ...]
    frames: tuple[int, ...]
    log_posteriors: tuple[float, ...]  # of each token in its frame, nats
    score: float  # natural log probability


@dataclass(frozen=True)
class Decoded:
    """An utterance with its transcript and what the model heard, which is the first hypothesis."""

    id: str
    speaker: str
    duration: float  # seconds, of the audio
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
    """Score, and write the files of a decode directory.

    These are `ref.trn`, `hyp.trn`, `ref.stm` and `hyp.ctm` (see `plateau.decoding.files`),
    `wer.txt`, and `hyp_tokens.ctm` with a line per token. Words and tokens have their confidence:
    of a word, the geometric mean of the posteriors of its tokens. Times count from the start of
    the utterance.

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
        word and character error rate in percent, not rounded
    """
    decoded = sorted(decoded, key=lambda d: d.id)
    references = {d.id: tokenizer.reference(d.text) for d in decoded}
    hypotheses = {d.id: tokenizer.decode(d.best.tokens) for d in decoded}
    scores = score(references, hypotheses)
    write_scores(decode_dir, scores)
    write_stm(
        decode_dir / "ref.stm",
        (Segment(d.id, d.speaker, 0.0, d.duration, references[d.id]) for d in decoded),
    )
    tokens = {d.id: token_intervals(d, tokenizer, subsampling_factor) for d in decoded}
    write_ctm(decode_dir / "hyp_tokens.ctm", tokens)
    words = {id: spelt_words(intervals, has_marks(tokenizer)) for id, intervals in tokens.items()}
    write_ctm(
        decode_dir / "hyp.ctm",
        {
            for_sclite(id): [word._replace(label=for_sclite(word.label)) for word in intervals]
            for id, intervals in words.items()
        },
    )
    nbest_file = decode_dir / "nbest.txt"
    nbest_file.unlink(missing_ok=True)  # of a decoding before
    if nbest and any(len(d.hypotheses) > 1 for d in decoded):
        _write_nbest(nbest_file, decoded, tokenizer, nbest)
    return {"wer": scores.wer, "cer": scores.cer}


def token_intervals(
    decoded: Decoded, tokenizer: Tokenizer, subsampling_factor: int
) -> list[Interval]:
    """When the tokens of the best hypothesis are emitted, with their posteriors."""
    best = decoded.best
    pieces = zip(
        emitted(best.frames, subsampling_factor), best.tokens, best.log_posteriors, strict=True
    )
    intervals = [
        Interval(start, end, tokenizer.tokens[token], min(math.exp(log_posterior), 1.0))
        for (start, end), token, log_posterior in pieces
    ]
    return in_milliseconds(intervals, decoded.duration)


def _write_nbest(path: Path, decoded: list[Decoded], tokenizer: Tokenizer, nbest: int) -> None:
    lines = []
    for d in decoded:
        scores: dict[str, float] = {}  # by words, best first
        for hypothesis in d.hypotheses:
            scores.setdefault(tokenizer.decode(hypothesis.tokens), hypothesis.score)
        for rank, words in enumerate(list(scores)[:nbest], start=1):
            lines.append(f"{d.id} {rank} {scores[words]:.4f} {words}".rstrip() + "\n")
    write_text(path, "".join(lines))
