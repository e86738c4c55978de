"""Stage 6: decode the test sets with the final model, and score."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from conformer_ctc.options import DecodingOptions, Options
from conformer_ctc.train import build_model
from plateau.config import UserError, cli
from plateau.data.corpus import TRAIN
from plateau.data.tokens import Tokenizer, encode_words, read_lang
from plateau.decoding.ctc import greedy_search, one_best, prefix_beam_search
from plateau.decoding.run import Encode, Search, decode, single
from plateau.decoding.words import unigram
from plateau.graphs.ctc import ctc_topology, lexicon_graph
from plateau.graphs.dense import emission_scores
from plateau.graphs.loss import collapses
from plateau.models.ctc import CtcModel
from plateau.training.experiment import corpus_of, lang_dir


def check_methods(
    methods: Iterable[str], topology: str, tokenizer: Tokenizer, texts: Iterable[str]
) -> None:
    """See that the methods of decoding can find all of these texts.

    Raises:
        UserError: they cannot: tokens that are next to their like would be heard as one.
    """
    collapsing = [method for method in methods if method != "lexicon"]
    if not collapsing or topology.startswith("ctc"):
        return
    for text in texts:
        if not collapses(topology, encode_words(tokenizer, text)):
            raise UserError(
                f"decoding.methods: {', '.join(collapsing)} would take equal tokens in a row for "
                f"one, as in '{text[:50]}', since loss.topology={topology} has no blank between\n"
                "them; set decoding.methods=[lexicon], or loss.topology=ctc_without_inner_blank"
            )


def searches(
    options: DecodingOptions, topology: str, tokenizer: Tokenizer, texts: Sequence[str]
) -> dict[str, Search]:
    """The methods asked for: from (N, T, V) log_probs and (N,) lengths to N n-best lists.

    Args:
        options: which methods.
        topology: what the model was trained with.
        tokenizer: of the model.
        texts: transcripts of the training set.

    Raises:
        UserError: see `check_methods`.
    """
    check_methods(options.methods, topology, tokenizer, texts)
    found: dict[str, Search] = {}
    vocab_size = len(tokenizer.tokens)
    if "greedy" in options.methods:
        found["greedy"] = single(greedy_search)
    if "prefix_beam" in options.methods:
        found["prefix_beam"] = partial(
            prefix_beam_search, beam=options.beam, nbest=max(1, options.nbest)
        )
    if "one_best" in options.methods:
        graph = ctc_topology(vocab_size)
        found["one_best"] = single(partial(one_best, graph=graph, search_beam=1.0))
    if "lexicon" in options.methods:
        words = unigram(texts, tokenizer, options.lm_scale)
        graph = lexicon_graph(words, vocab_size, topology)
        found["lexicon"] = single(partial(one_best, graph=graph, search_beam=options.search_beam))
    return found


def decoder(
    model: CtcModel, options: Options, decoding: DecodingOptions
) -> tuple[Encode, dict[str, Search]]:
    """All that decoding does with a model; stage 4 tries it before there is a trained one.

    Args:
        model: trained or not.
        options: that the model is made with.
        decoding: methods, which may be others than were thought of then.

    Raises:
        UserError: see `check_methods`; or a prior is asked for that the model has not.
    """
    tokenizer = read_lang(lang_dir(options))
    texts = list(corpus_of(options).texts(TRAIN))
    methods = searches(decoding, options.loss.topology, tokenizer, texts)
    if decoding.prior_scale and model.prior is None:
        raise UserError(
            f"decoding.prior_scale is {decoding.prior_scale}, but the model has no label prior; "
            "train with loss.prior.estimator, or set decoding.prior_scale=0"
        )
    device = next(model.parameters()).device

    def encode(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        log_probs, lengths = model(features.to(device), lengths.to(device))  # (N, T', V), (N,)
        if decoding.prior_scale:
            log_probs = emission_scores(log_probs, model.prior.log_prior, decoding.prior_scale)
            # Probabilities again, for the confidences: all paths change by the same.
            log_probs = log_probs.log_softmax(2)
        return log_probs.cpu(), lengths.cpu()

    return encode, methods


def main(exp_dir: Path) -> None:
    """Decode every test set of the experiment's corpus by every method.

    Args:
        exp_dir: the experiment's folder, trained
    """
    decode(exp_dir, Options, build_model, decoder)


if __name__ == "__main__":
    cli(main)
