"""Alignment as every recipe does it: sets of a corpus, or any other cuts, by a trained model."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lhotse import CutSet, SupervisionSegment
from torch import Tensor
from tqdm import tqdm

from plateau.alignment.files import (
    AlignedUtterance,
    Alignment,
    aligned_utterance,
    textgrid_path,
    token_times,
    words_of,
    write_alignments,
    write_frames,
    write_supervisions,
)
from plateau.alignment.measures import Measured, matching, measure, times_of
from plateau.alignment.spelling import Speller
from plateau.config import UserError
from plateau.data.corpus import TRAIN
from plateau.data.features import FRAME_SHIFT
from plateau.data.loading import Batch, BatchLoader, enough_memory
from plateau.data.tokens import UNKNOWN, read_lang
from plateau.decoding.files import Interval, emitted, whole_milliseconds
from plateau.io import write_json, write_text
from plateau.results import make_records
from plateau.text import normalise
from plateau.training.experiment import Experiment, SpeechOptions, corpus_of, lang_dir

# Words of a lower confidence are listed: either they were not said, or not so. Of 60 words put into
# transcripts of espeak's test_clean where they were not said, this finds 60 with a CTC model and 59
# with a transducer; of the 396 words of the right transcripts, none.
DOUBTFUL = 0.1
SHOWN = 20  # utterances left out that are printed


@dataclass(frozen=True)
class Aligner:
    """A trained model that aligns: ``load(exp_dir)`` in ``<recipe>/align.py`` makes it.

    Args:
        options: those of the training.
        subsampling_factor: feature frames for each frame of the encoder.
        align: from features (N, T, F), lengths (N,), and N transcripts, as the token ids of each
            word, to their best paths.
        frames_needed: from a transcript of this form, to the frames of its shortest path.
        max_seconds: longer utterances would take too much memory, and are left out.
    """

    options: SpeechOptions
    subsampling_factor: int
    align: Callable[[Tensor, Tensor, Sequence[Sequence[Sequence[int]]]], list[Alignment]]
    frames_needed: Callable[[Sequence[Sequence[int]]], int]
    max_seconds: float = float("inf")


@dataclass(frozen=True)
class Result:
    """An utterance with its alignment in frames, and in seconds as measures want it."""

    alignment: Alignment
    measured: Measured


def align_sets(exp_dir: Path, aligner: Aligner, sets: str = "") -> None:
    """Align sets of the experiment's corpus, each into ``exp_dir/align_<set>/``; see `align_cuts`.

    Args:
        exp_dir: the experiment's folder.
        aligner: its model.
        sets: names of sets, separated by commas; without it, those that are decoded.
    """
    corpus = corpus_of(aligner.options)
    names = sets.replace(",", " ").split() or corpus.test_sets()
    unknown = sorted(set(names) - set(corpus.sets()))
    if unknown:
        raise UserError(
            f"--sets: {corpus.root} has no {', '.join(unknown)}; it has {', '.join(corpus.sets())}"
        )
    # Sets that the corpus has no more; others may have been asked for by name.
    gone = set(exp_dir.glob("align_*")) - {exp_dir / f"align_{name}" for name in corpus.sets()}
    Experiment(exp_dir).set_aside(gone)
    for name in names:
        supervisions = corpus.supervisions(name)
        align_cuts(aligner, corpus.cuts(name), supervisions, exp_dir / f"align_{name}", name)


def align_cuts(
    aligner: Aligner,
    cuts: CutSet,
    supervisions: Iterable[SupervisionSegment],
    directory: Path,
    name: str,
    left_out: Iterable[str] = (),
) -> int:
    """Align cuts, write all files of an alignment, and tell what is left out and doubtful.

    Args:
        aligner: the model.
        cuts: utterances, each with one supervision, whose id is the cut's.
        supervisions: have the true times, where these are known.
        directory: gets ``tokens.ctm``, ``words.ctm``, TextGrids, ``frames.txt`` (the encoder's
            frame of each token), ``supervisions.jsonl.gz``, ``metrics.json``, ``left_out.txt``
            (utterance and reason) and ``doubtful.txt`` (words of a confidence below `DOUBTFUL`).
        name: of the set.
        left_out: lines ``<utterance> <reason>`` of those that are no cuts.

    Returns:
        how many utterances are aligned

    Raises:
        UserError: a TextGrid could not be written; all that could be is there.
    """
    left_out = list(left_out)
    kept = []
    for cut in cuts:
        if cut.duration > aligner.max_seconds:
            left_out.append(
                f"{cut.id} has {cut.duration:.0f} s, and this model aligns "
                f"{aligner.max_seconds:.0f} s at most; take one of conformer_ctc"
            )
        else:
            kept.append(cut)
    tokenizer = Speller(read_lang(lang_dir(aligner.options)))
    results = []
    if kept:
        loader = BatchLoader(
            CutSet.from_cuts(kept), aligner.options.loading, aligner.options.features
        )
        batches = tqdm(loader.batches(), desc=name, unit="batch", disable=None, leave=False)
        durations = {cut.id: cut.duration for cut in kept}
        for result in aligned(aligner, batches, tokenizer, durations):
            (left_out if isinstance(result, str) else results).append(result)
    utterances = [result.measured.aligned for result in results]
    lines = [
        f"{u.id} {word.start:.3f} {word.end:.3f} {word.label} {word.confidence:.3f}"
        for u in utterances
        for word in u.words
        if word.confidence is not None and word.confidence < DOUBTFUL
    ]

    values = measures(results, list(supervisions), aligner.subsampling_factor)
    write_json(directory / "metrics.json", make_records(name, "alignment", **values))
    unwritten = write_alignments(directory, utterances)
    write_supervisions(directory / "supervisions.jsonl.gz", kept, utterances)
    write_frames(
        directory / "frames.txt",
        {result.measured.aligned.id: result.alignment.frames for result in results},
    )
    for file, rows in (("left_out.txt", left_out), ("doubtful.txt", lines)):
        write_text(directory / file, "".join(f"{row}\n" for row in sorted(rows)))

    print(f"{name}: {len(utterances)} utterances aligned, in {directory}")
    if note := tokenizer.note():
        print(f"{name}: {note}")
    new = _new_words(aligner.options, utterances, tokenizer)
    if new:
        shown = ", ".join(new[:10]) + ", …" * (len(new) > 10)
        print(f"{name}: spelt by the model's tokens, for training had no such words: {shown}")
    if lines:
        print(f"{name}: {len(lines)} words may not have been said: {directory / 'doubtful.txt'}")
    for row in sorted(left_out)[:SHOWN]:
        print(f"{name}: left out {row}")
    if len(left_out) > SHOWN:
        print(f"{name}: left out {len(left_out) - SHOWN} others: {directory / 'left_out.txt'}")
    renamed = {u.id: textgrid_path(directory, u.id).name for u in utterances}
    renamed = {id: file for id, file in renamed.items() if file != f"{id}.TextGrid"}
    if renamed:
        id, file = next(iter(renamed.items()))
        print(
            f"{name}: {len(renamed)} TextGrids are not named as their utterances, which no file "
            f"can be: too long, or with / or %; {id} is in {file}"
        )
    if unwritten:
        id, why = next(iter(unwritten.items()))
        raise UserError(
            f"{name}: {len(unwritten)} of {len(utterances)} TextGrids could not be written, all "
            f"other files are there; {textgrid_path(directory, id)}: {why}"
        )
    return len(utterances)


def aligned(
    aligner: Aligner, batches: Iterable[Batch], tokenizer: Speller, durations: Mapping[str, float]
) -> Iterator[Result | str]:
    """Each utterance with its alignment, or why it has none: ``<id> <reason>``.

    Args:
        aligner: the model.
        batches: utterances.
        tokenizer: of the model.
        durations: of the utterances' audio, seconds, by id.
    """
    unknown = tokenizer.tokens.index(UNKNOWN)
    factor = aligner.subsampling_factor
    for batch in batches:
        words = [words_of(tokenizer, text or "") for text in batch.texts]
        transcripts = [[tokens for _, tokens in each if tokens] for each in words]
        with enough_memory(batch, "loading.max_duration (--stage 7; else it is trained again)"):
            alignments = aligner.align(batch.features, batch.lengths, transcripts)
        rows = zip(batch.ids, words, transcripts, alignments, strict=True)
        for id, each, transcript, alignment in rows:
            size = sum(len(tokens) for _, tokens in each)
            unspellable = [word for word, tokens in each if unknown in tokens]
            if not size:
                yield f"{id} has no text"
            elif unspellable:
                reason = tokenizer.lacking(unspellable)
                yield f"{id} has words that the model cannot spell: {reason}"
            elif not alignment.frames:
                yield f"{id} {_no_path(aligner.frames_needed(transcript), size, alignment)}"
            elif size > whole_milliseconds(durations[id]):
                yield f"{id} has {size} tokens in {durations[id]:.3f} s, more than milliseconds"
            else:
                utterance = aligned_utterance(id, each, alignment, factor, tokenizer, durations[id])
                yield Result(alignment, _measured(utterance, alignment, factor))


def _no_path(needed: int, size: int, alignment: Alignment) -> str:
    has = alignment.num_frames
    if has < needed:
        return f"is too short for its text: {size} tokens need {needed} frames, and it has {has}"
    return f"has no path: the model gives none of its {size} tokens' paths a probability above 0"


def _measured(utterance: AlignedUtterance, alignment: Alignment, factor: int) -> Measured:
    return Measured(
        utterance,
        duration=alignment.num_frames * factor * FRAME_SHIFT,
        runs=[
            Interval(*times, token.label)
            for times, token in zip(token_times(alignment, factor), utterance.tokens, strict=True)
        ],
        peaks=[(start + end) / 2 for start, end in emitted(alignment.frames, factor)],
        sharpness=alignment.sharpness,
        entropy=alignment.entropy,
    )


def measures(
    results: Iterable[Result], supervisions: Sequence[SupervisionSegment], subsampling_factor: int
) -> dict[str, float]:
    """Measures of alignments (`plateau.alignment.measures`).

    Args:
        results: of a set.
        supervisions: have the true times, if there are any.
        subsampling_factor: feature frames for each frame of the encoder.
    """
    words, phones = (times_of(supervisions, kind) for kind in ("word", "phone"))
    measured = []
    for result in results:
        utterance = result.measured.aligned
        true_words = words.get(utterance.id, ())
        measured.append(
            replace(
                result.measured,
                true_words=matching(utterance.words, true_words),
                true_tokens=matching(utterance.tokens, phones.get(utterance.id, ()), true_words),
            )
        )
    return measure(measured, subsampling_factor * FRAME_SHIFT)


def _new_words(
    options: SpeechOptions, utterances: Iterable[AlignedUtterance], speller: Speller
) -> list[str]:
    """Words that are in no transcript of the training set, sorted; none if that is not there."""
    corpus = corpus_of(options)
    if not corpus.manifest("supervisions", TRAIN).exists():
        return []
    words = {speller.spelling(word.label) for each in utterances for word in each.words}
    for text in corpus.texts(TRAIN):
        words.difference_update(normalise(text).split())
    return sorted(words)
