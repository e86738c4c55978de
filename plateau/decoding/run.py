"""Decoding as every recipe does it: all test sets of a corpus by all methods, with scores."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from plateau.config import UserError
from plateau.data.features import FRAME_SHIFT
from plateau.data.loading import BatchLoader
from plateau.data.tokens import Tokenizer
from plateau.decoding.evaluate import Decoded, TimedTokens, evaluate
from plateau.io import write_json
from plateau.results import make_records
from plateau.training.experiment import Experiment, ExperimentOptions, corpus_of

Encode = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Search = Callable[[Tensor, Tensor], Sequence[TimedTokens]]


@torch.no_grad()
def decode_test_sets(
    experiment: Experiment,
    options: ExperimentOptions,
    tokenizer: Tokenizer,
    subsampling_factor: int,
    encode: Encode,
    searches: Mapping[str, Search],
) -> None:
    """Decode and score; the real-time factor counts the encoder and the search.

    Args:
        experiment: gets a folder for each set and method.
        options: of the run: its corpus, features and batches.
        tokenizer: turns tokens into words.
        subsampling_factor: feature frames for each frame of the encoder.
        encode: from features (N, T, F) and lengths (N,) to (N, T', …) and (N,).
        searches: by method, from these to N hypotheses.

    Raises:
        UserError: the corpus has no test set.
    """
    corpus = corpus_of(options)
    if not corpus.test_sets():
        raise UserError(f"{corpus.root}: no set to decode; put one in {corpus.root}/test")
    for set_name in corpus.test_sets():
        loader = BatchLoader(corpus.cuts(set_name), options.loading, options.features)
        decoded: dict[str, list[Decoded]] = {method: [] for method in searches}
        seconds: Counter[str] = Counter()
        progress = tqdm(
            desc=set_name, total=round(loader.total_seconds), unit="s", disable=None, leave=False
        )
        for batch in loader.batches():
            started = time.perf_counter()
            encoded, lengths = encode(batch.features, batch.lengths)
            encoder_seconds = time.perf_counter() - started
            for method, search in searches.items():
                started = time.perf_counter()
                hypotheses = search(encoded, lengths)
                seconds[method] += encoder_seconds + time.perf_counter() - started
                decoded[method] += map(Decoded, batch.ids, batch.texts, hypotheses)
            progress.update(round(batch.seconds))
        progress.close()
        for method in searches:
            decode_dir = experiment.decode_dir(set_name, method)
            frame_shift = subsampling_factor * FRAME_SHIFT
            metrics = evaluate(decode_dir, decoded[method], tokenizer, frame_shift)
            metrics["rtf"] = round(seconds[method] / loader.total_seconds, 4)
            write_json(decode_dir / "metrics.json", make_records(set_name, method, **metrics))
