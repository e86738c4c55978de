"""Stage 7: forced alignment of transcripts with the final model.

`python transducer/align.py exp/<corpus>/transducer/<exp> --sets dev,test` writes, for each set,
``align_<set>/`` with ``tokens.ctm``, ``words.ctm``, a Praat TextGrid for each utterance,
``frames.txt`` (the encoder's frame of each token), ``metrics.json`` (errors against the true times,
where these are known) and ``left_out.txt``.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from plateau.alignment.files import (
    AlignedUtterance,
    Interval,
    aligned_utterance,
    emitted,
    words_of,
    write_alignments,
    write_frames,
)
from plateau.alignment.measures import Measured, matching, measure, true_times
from plateau.alignment.transducer import Topology, align
from plateau.config import UserError, cli
from plateau.data.corpus import Corpus
from plateau.data.features import FRAME_SHIFT
from plateau.data.loading import Batch, BatchLoader
from plateau.data.tokens import Tokenizer, read_lang
from plateau.io import write_json, write_text
from plateau.models.transducer import TransducerModel
from plateau.results import make_records
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.recipe import load_final
from transducer.options import Options
from transducer.train import build_model


def aligned(
    model: TransducerModel, batches: Iterable[Batch], tokenizer: Tokenizer, topology: Topology
) -> Iterator[tuple[AlignedUtterance, tuple[int, ...]] | str]:
    """Each utterance with its tokens' frames, or why it has none: ``<id> <reason>``."""
    device = next(model.parameters()).device
    factor = model.encoder.subsampling_factor
    for batch in batches:
        words = [words_of(tokenizer, text or "") for text in batch.texts]
        targets = [[token for _, tokens in each for token in tokens] for each in words]
        features, lengths = batch.features.to(device), batch.lengths.to(device)
        alignments = align(model, features, lengths, targets, topology)
        for id, each, target, found in zip(batch.ids, words, targets, alignments, strict=True):
            if not target:
                yield f"{id} has no text"
            elif not found.frames:
                yield f"{id} has {len(target)} tokens and {found.num_frames} frames, no path fits"
            else:
                arguments = (found.frames, found.num_frames, factor, tokenizer)
                yield aligned_utterance(id, each, *arguments), found.frames


def measures(
    corpus: Corpus,
    set_name: str,
    utterances: Iterable[AlignedUtterance],
    frames: Mapping[str, Sequence[int]],
    subsampling_factor: int,
) -> dict[str, float]:
    """Measures of a set's alignment (`plateau.alignment.measures`), rounded.

    Args:
        corpus: has the true times, if there are any.
        set_name: of the set.
        utterances: aligned.
        frames: of each token, by utterance.
        subsampling_factor: feature frames for each frame of the encoder.
    """
    words, phones = (true_times(corpus, set_name, kind) for kind in ("word", "phone"))
    measured = []
    for utterance in utterances:
        pieces = emitted(frames[utterance.id], subsampling_factor)
        true_words = words.get(utterance.id, ())
        measured.append(
            Measured(
                utterance,
                runs=[
                    Interval(*piece, token.label)
                    for piece, token in zip(pieces, utterance.tokens, strict=True)
                ],
                true_words=matching(utterance.words, true_words),
                true_tokens=matching(utterance.tokens, phones.get(utterance.id, ()), true_words),
                peaks=[(start + end) / 2 for start, end in pieces],
            )
        )
    values = measure(measured, subsampling_factor * FRAME_SHIFT)
    return {name: round(value, 4) for name, value in values.items()}


def main(exp_dir: Path, sets: str = "") -> None:
    """Align sets of the experiment's corpus by the final model.

    Args:
        exp_dir: the experiment's folder, trained
        sets: names of sets, separated by commas; without it, those that are decoded
    """
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, Options, build_model)
    corpus, tokenizer = corpus_of(options), read_lang(lang_dir(options))
    names = sets.replace(",", " ").split() or corpus.test_sets()
    unknown = sorted(set(names) - set(corpus.sets()))
    if unknown:
        raise UserError(
            f"--sets: {corpus.root} has no {', '.join(unknown)}; it has {', '.join(corpus.sets())}"
        )

    for name in names:
        loader = BatchLoader(corpus.cuts(name), options.loading, options.features)
        batches = tqdm(loader.batches(), desc=name, unit="batch", disable=None, leave=False)
        utterances, frames, left_out = [], {}, []
        for result in aligned(model, batches, tokenizer, options.loss.topology):
            if isinstance(result, str):
                left_out.append(result)
                continue
            utterances.append(result[0])
            frames[result[0].id] = result[1]
        align_dir = exp_dir / f"align_{name}"
        times = measures(corpus, name, utterances, frames, model.encoder.subsampling_factor)
        write_json(align_dir / "metrics.json", make_records(name, "alignment", **times))
        write_alignments(align_dir, utterances)
        write_frames(align_dir / "frames.txt", frames)
        write_text(align_dir / "left_out.txt", "".join(f"{line}\n" for line in sorted(left_out)))
        print(f"{name}: {len(utterances)} utterances aligned, in {align_dir}")
        for line in sorted(left_out):
            print(f"{name}: left out {line}")


if __name__ == "__main__":
    cli(main)
