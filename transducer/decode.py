"""Stage 6: decode the test sets with the final model, and score."""

from collections.abc import Iterable
from functools import partial
from pathlib import Path

from torch import Tensor

from plateau.config import cli
from plateau.data.corpus import TRAIN
from plateau.data.tokens import Tokenizer, read_lang
from plateau.decoding.run import Encode, Search, decode, single
from plateau.decoding.transducer import (
    fast_beam_search,
    greedy_search,
    modified_beam_search,
)
from plateau.graphs.transducer_decoding import lg_graph, trivial_graph
from plateau.models.transducer import TransducerModel
from plateau.text import normalise
from plateau.training.experiment import corpus_of, lang_dir
from transducer.options import DecodingOptions, Options
from transducer.train import build_model


def searches(
    model: TransducerModel,
    options: DecodingOptions,
    topology: str,
    tokenizer: Tokenizer,
    train_texts: Iterable[str],
) -> dict[str, Search]:
    """The methods asked for: from the joiner's view (N, T, J) and lengths (N,) to N n-best lists.

    Raises:
        UserError: a method lacks what it needs.
    """
    found: dict[str, Search] = {}
    penalty = options.blank_penalty
    nbest = max(1, options.nbest)
    if "greedy" in options.methods:
        found["greedy"] = single(
            partial(greedy_search, model, topology=topology, blank_penalty=penalty)
        )
    if "modified_beam" in options.methods:
        found["modified_beam"] = partial(
            modified_beam_search,
            model,
            beam=options.beam,
            blank_penalty=penalty,
            nbest=nbest,
            topology=topology,
        )
    graphs = {}
    vocab_size = len(tokenizer.tokens)
    if "fast_beam" in options.methods:
        graphs["fast_beam"] = trivial_graph(vocab_size)
    if "fast_beam_lg" in options.methods:
        words = {word for text in train_texts for word in normalise(text).split()}
        lexicon = {word: tokenizer.encode(word) for word in sorted(words)}
        arpa, scale = Path(options.arpa), options.lm_scale
        graphs["fast_beam_lg"] = lg_graph(lexicon, arpa, vocab_size, scale)
    device = next(model.parameters()).device
    for method, graph in graphs.items():
        found[method] = partial(
            fast_beam_search,
            model,
            graph=graph.to(device),
            beam=options.search_beam,
            blank_penalty=penalty,
            nbest=nbest,
        )
    return found


def decoder(
    model: TransducerModel, options: Options, decoding: DecodingOptions
) -> tuple[Encode, dict[str, Search]]:
    """All that decoding does with a model; stage 4 tries it before there is a trained one.

    Args:
        model: trained or not.
        options: that the model is made with.
        decoding: methods, which may be others than were thought of then.

    Raises:
        UserError: see `searches`.
    """
    tokenizer = read_lang(lang_dir(options))
    texts = corpus_of(options).texts(TRAIN)
    device = next(model.parameters()).device

    def encode(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return model.encode(features.to(device), lengths.to(device))

    return encode, searches(model, decoding, options.loss.topology, tokenizer, texts)


def main(exp_dir: Path) -> None:
    """Decode every test set of the experiment's corpus by every method.

    Args:
        exp_dir: the experiment's folder, trained
    """
    decode(exp_dir, Options, build_model, decoder)


if __name__ == "__main__":
    cli(main)
