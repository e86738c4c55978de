"""Decoding as every recipe does it: all test sets of a corpus by all methods, with scores."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lhotse import CutSet
from lhotse.cut import Cut
from torch import Tensor, nn
from tqdm import tqdm

from plateau.config import T, UserError
from plateau.data.corpus import Corpus
from plateau.data.loading import Batch, enough_memory, load_batch
from plateau.data.tokens import Tokenizer, read_lang
from plateau.decoding.evaluate import Decoded, Hypothesis, evaluate
from plateau.decoding.files import for_sclite, one_for_sclite
from plateau.io import write_json
from plateau.ranges import COUNT, Range, at_least, check_options
from plateau.results import RTF, make_records
from plateau.training.experiment import Experiment, SpeechOptions, corpus_of, lang_dir
from plateau.training.recipe import load_final

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# From what `Encode` gives to an n-best list for each utterance: best first, at least one.
Search = Callable[[Tensor, Tensor], Sequence[Sequence[Hypothesis]]]


@dataclass(frozen=True)
class CommonDecodingOptions:
    """How to go through test sets, whatever the method; a recipe adds its own.

    Args:
        batch_sizes: utterances decoded at once; fewer need less memory. The hypotheses are those of
            the first size; the real-time factor is measured for each. Smaller batches are parts of
            the largest
        nbest: hypotheses of an utterance in `nbest.txt`, at most, for methods that find more than
            one; 0: no such file
    """

    batch_sizes: tuple[int, ...] = (16, 1)
    nbest: int = 0

    def __post_init__(self) -> None:
        self.check()

    def check(self, **ranges: Range) -> None:
        """See that all fields have values that make sense; ``ranges`` are those of a recipe's own.

        Raises:
            UserError: names field, value and range.
        """
        check_options(self, "decoding", batch_sizes=at_least(1, 10**6), nbest=COUNT, **ranges)
        for name in ("batch_sizes", "methods"):
            values = getattr(self, name, (1,))
            if not values or len(set(values)) < len(values):
                raise UserError(f"decoding.{name} is {list(values)}; give one or more, each once")


def single(search: Callable[[Tensor, Tensor], Sequence[Hypothesis]]) -> Search:
    """A search that finds one hypothesis for each utterance, with n-best lists of one."""
    return lambda encoded, lengths: [[hypothesis] for hypothesis in search(encoded, lengths)]


def cuts_to_decode(corpus: Corpus, set_name: str) -> list[Cut]:
    """The utterances of a set, longest first, so that there is little padding.

    Raises:
        UserError: there are none, or two would have the same name in the files of sclite.
    """
    found = sorted(corpus.cuts(set_name), key=lambda cut: cut.duration, reverse=True)
    if not found:
        raise UserError(f"{corpus.manifest('cuts', set_name)}: no utterances to decode")
    if same := one_for_sclite(cut.id for cut in found):
        raise UserError(
            f"{corpus.root / set_name}: the utterances {' and '.join(same)} would both be "
            f"{for_sclite(same[0])} in the files of sclite; rename one"
        )
    return found


# From a model, the options that it was made with, and those of decoding, which may be newer.
Decoder = Callable[[Any, Any, Any], tuple[Encode, dict[str, Search]]]


def decode(
    exp_dir: Path,
    options_class: type[T],
    build_model: Callable[[T], nn.Module],
    decoder: Decoder,
    others: Iterable[str] = (),
) -> None:
    """Decode every test set of an experiment's corpus by every method: stage 6 of a recipe.

    Args:
        exp_dir: the experiment's folder, trained.
        options_class: of the recipe.
        build_model: makes the untrained model.
        decoder: makes the searches that the options of decoding name.
        others: methods whose folders the recipe makes itself, and which stay.
    """
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, options_class, build_model)
    decoding = experiment.options(options_class).decoding
    encode, searches = decoder(model, options, decoding)
    tokenizer = read_lang(lang_dir(options))
    factor = model.encoder.subsampling_factor
    decode_test_sets(experiment, options, decoding, tokenizer, factor, encode, searches, others)


@torch.no_grad()
def decode_test_sets(
    experiment: Experiment,
    options: SpeechOptions,
    decoding: CommonDecodingOptions,
    tokenizer: Tokenizer,
    subsampling_factor: int,
    encode: Encode,
    searches: Mapping[str, Search],
    others: Iterable[str] = (),
) -> None:
    """Decode and score.

    Folders of sets and methods that are not decoded any more are set aside first.

    The real-time factor is seconds of encoder and search, by the clock, per second of audio. It is
    measured for each batch size, with as many threads as torch has. Features are loaded between the
    measurements, in this process: one that loads ahead would take its share of the cores.

    Args:
        experiment: gets a folder for each set and method.
        options: of the run: its corpus and features.
        decoding: batch sizes, and length of the n-best lists.
        tokenizer: turns tokens into words.
        subsampling_factor: feature frames for each frame of the encoder.
        encode: from features (N, T, F) and lengths (N,) to (N, T', …) and (N,).
        searches: by method, from these to N n-best lists.
        others: methods that are no searches, whose folders stay.

    Raises:
        UserError: the corpus has no test set.
    """
    corpus = corpus_of(options)
    test_sets = corpus.test_sets()
    if not test_sets:
        raise corpus.nothing_to_decode()
    made = [
        experiment.decode_dir(name, method) for name in test_sets for method in (*searches, *others)
    ]
    experiment.set_aside(set(experiment.path.glob("decode_*")) - set(made))
    sizes = decoding.batch_sizes
    for set_name in test_sets:
        cuts = cuts_to_decode(corpus, set_name)
        total_seconds = sum(cut.duration for cut in cuts)
        decoded: dict[str, list[Decoded]] = {method: [] for method in searches}
        seconds: dict[int, Counter[str]] = {size: Counter() for size in sizes}
        progress = tqdm(
            desc=set_name, total=round(total_seconds), unit="s", disable=None, leave=False
        )
        for first in range(0, len(cuts), max(sizes)):
            some = CutSet.from_cuts(cuts[first : first + max(sizes)])
            cut_of = {cut.id: cut for cut in some}
            batch = load_batch(some, options.features)
            if first == 0:  # not counted: much is made when it is first used
                decode_batch(batch, sizes[0], encode, searches)
            for size in sizes:
                found, taken = decode_batch(batch, size, encode, searches)
                seconds[size].update(taken)
                if size == sizes[0]:
                    for method, nbest_lists in found.items():
                        decoded[method] += [
                            _decoded(cut_of[id], text, hypotheses)
                            for id, text, hypotheses in zip(
                                batch.ids, batch.texts, nbest_lists, strict=True
                            )
                        ]
            progress.update(round(batch.seconds))
        progress.close()
        for method in searches:
            decode_dir = experiment.decode_dir(set_name, method)
            metrics = evaluate(
                decode_dir, decoded[method], tokenizer, subsampling_factor, decoding.nbest
            )
            for size in sizes:
                metrics[f"{RTF}{size}"] = seconds[size][method] / total_seconds
            write_json(decode_dir / "metrics.json", make_records(set_name, method, **metrics))


def _decoded(cut: Cut, text: str, hypotheses: Sequence[Hypothesis]) -> Decoded:
    (supervision,) = cut.supervisions
    return Decoded(cut.id, supervision.speaker or cut.id, cut.duration, text or "", hypotheses)


@torch.no_grad()
def decode_batch(
    batch: Batch, size: int, encode: Encode, searches: Mapping[str, Search]
) -> tuple[dict[str, list[Sequence[Hypothesis]]], Counter[str]]:
    """Decode ``size`` utterances at a time.

    Returns:
        by method, an n-best list for each utterance of the batch; and the seconds of encoder and
        search
    """
    found: dict[str, list[Sequence[Hypothesis]]] = {method: [] for method in searches}
    seconds: Counter[str] = Counter()
    parts = zip(batch.features.split(size), batch.lengths.split(size), strict=True)
    with enough_memory(batch, "decoding.batch_sizes", size):
        for features, lengths in parts:  # (n, T, F), (n,)
            started = time.perf_counter()
            encoded, encoded_lengths = encode(features[:, : int(lengths.max())], lengths)
            if encoded.is_cuda:
                torch.cuda.synchronize()  # else the first search would wait for the encoder
            encoder_seconds = time.perf_counter() - started
            for method, search in searches.items():
                started = time.perf_counter()
                found[method] += search(encoded, encoded_lengths)
                seconds[method] += encoder_seconds + time.perf_counter() - started
    return found, seconds
