"""Stage 6: decode the test sets with the final model, and score."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from conformer_ctc.options import DecodingOptions, Options
from plateau.config import UserError, cli, resolve
from plateau.data.corpus import TRAIN
from plateau.data.features import FRAME_SHIFT
from plateau.data.loading import BatchLoader
from plateau.data.tokens import Tokenizer, read_lang
from plateau.decoding.ctc import Hypothesis, greedy_search, one_best, prefix_beam_search
from plateau.decoding.evaluate import Decoded, evaluate
from plateau.graphs.ctc import ctc_topology, lexicon_graph
from plateau.io import write_json
from plateau.models.ctc import CtcModel
from plateau.results import make_records
from plateau.text import normalise
from plateau.training import checkpoint
from plateau.training.experiment import Experiment, corpus_of, lang_dir

Search = Callable[[Tensor, Tensor], list[Hypothesis]]


def unigram(
    texts: Iterable[str], tokenizer: Tokenizer, lm_scale: float
) -> dict[tuple[int, ...], float]:
    """Tokens and scaled log probability of each word of ``texts``."""
    counts = Counter(word for text in texts for word in normalise(text).split())
    return {
        tuple(tokenizer.encode(word)): lm_scale * math.log(count / counts.total())
        for word, count in counts.items()
    }


def searches(
    options: DecodingOptions, tokenizer: Tokenizer, train_texts: Iterable[str]
) -> dict[str, Search]:
    """The methods asked for: from (N, T, V) log_probs and (N,) lengths to N hypotheses."""
    found: dict[str, Search] = {}
    vocab_size = len(tokenizer.tokens)
    if "greedy" in options.methods:
        found["greedy"] = greedy_search
    if "prefix_beam" in options.methods:
        found["prefix_beam"] = lambda log_probs, lengths: [
            n_best[0] for n_best in prefix_beam_search(log_probs, lengths, beam=options.beam)
        ]
    if "one_best" in options.methods:
        topology = ctc_topology(vocab_size)
        found["one_best"] = partial(one_best, graph=topology, search_beam=1.0)
    if "lexicon" in options.methods:
        words = unigram(train_texts, tokenizer, options.lm_scale)
        graph = lexicon_graph(words, vocab_size)
        found["lexicon"] = partial(one_best, graph=graph, search_beam=options.search_beam)
    return found


@torch.no_grad()
def main(exp_dir: Path) -> None:
    """Decode every test set of the experiment's corpus by every method.

    Args:
        exp_dir: the experiment's folder, trained
    """
    experiment = Experiment(exp_dir)
    state = checkpoint.load(experiment.final_model)
    # What the model is comes from the run; how to decode may change afterwards.
    options = resolve(Options, state["options"])
    decoding = experiment.options(Options).decoding
    corpus = corpus_of(options)
    tokenizer = read_lang(lang_dir(options))
    texts = (supervision.text for supervision in corpus.supervisions(TRAIN))
    methods = searches(decoding, tokenizer, texts)
    if not corpus.test_sets():
        raise UserError(f"{corpus.root}: no set to decode; put one in {corpus.root}/test")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = CtcModel(options.features.num_mel_bins, len(tokenizer.tokens), options.encoder)
    model.load_state_dict(state["model"])
    model.to(device).eval()

    for set_name in corpus.test_sets():
        loader = BatchLoader(corpus.cuts(set_name), options.loading, options.features)
        decoded: dict[str, list[Decoded]] = {method: [] for method in methods}
        seconds: Counter[str] = Counter()
        progress = tqdm(
            desc=set_name, total=round(loader.total_seconds), unit="s", disable=None, leave=False
        )
        for batch in loader.batches():
            started = time.perf_counter()
            batch = batch.to(device)
            log_probs, lengths = model(batch.features, batch.lengths)  # (N, T', V), (N,)
            log_probs, lengths = log_probs.cpu(), lengths.cpu()
            encoder_seconds = time.perf_counter() - started
            for method, search in methods.items():
                started = time.perf_counter()
                hypotheses = search(log_probs, lengths)
                seconds[method] += encoder_seconds + time.perf_counter() - started
                decoded[method] += map(Decoded, batch.ids, batch.texts, hypotheses)
            progress.update(round(batch.seconds))
        progress.close()
        for method in methods:
            decode_dir = experiment.decode_dir(set_name, method)
            frame_shift = model.encoder.subsampling_factor * FRAME_SHIFT
            metrics = evaluate(decode_dir, decoded[method], tokenizer, frame_shift)
            metrics["rtf"] = round(seconds[method] / loader.total_seconds, 4)
            write_json(decode_dir / "metrics.json", make_records(set_name, method, **metrics))


if __name__ == "__main__":
    cli(main)
