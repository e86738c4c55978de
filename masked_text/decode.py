"""Stage 6: decode the test sets with the final model, fill holes in their texts, and score."""

from functools import partial
from pathlib import Path

from torch import Tensor

from masked_text.holes import fill_methods, fill_test_sets
from masked_text.options import DecodingOptions, Options
from masked_text.train import build_model
from plateau.config import UserError, cli
from plateau.data.corpus import TRAIN
from plateau.data.tokens import read_lang
from plateau.decoding.ctc import Hypothesis, greedy_search, one_best
from plateau.decoding.masked import mask_predict
from plateau.decoding.run import Encode, Search, decode, single
from plateau.decoding.words import unigram
from plateau.graphs.ctc import lexicon_graph
from plateau.models.masked_text import MaskedTextModel, heard_places
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.recipe import load_final


def decoder(
    model: MaskedTextModel, options: Options, decoding: DecodingOptions
) -> tuple[Encode, dict[str, Search]]:
    """All that recognition does with a model; stage 4 tries it before there is a trained one.

    Args:
        model: trained or not.
        options: that the model is made with.
        decoding: methods, which may be others than were thought of then.
    """
    device = next(model.parameters()).device

    def encode(features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return model.ctc.encode(features.to(device), lengths.to(device))

    def greedy(encoder_out: Tensor, lengths: Tensor) -> list[Hypothesis]:
        return greedy_search(model.ctc.scores(encoder_out), lengths)

    def masked(
        encoder_out: Tensor, lengths: Tensor, correct_lengths: bool = False
    ) -> list[Hypothesis]:
        log_probs = model.ctc.scores(encoder_out)
        return mask_predict(
            model.decoder,
            log_probs,
            model.hear(encoder_out, lengths, heard_places(log_probs)),
            decoding.threshold,
            decoding.rounds,
            decoding.order,
            decoding.corrections,
            correct_lengths,
        )

    if "mask_predict_lengths" in decoding.methods and not model.decoder.max_length:
        raise UserError(
            "decoding.methods has mask_predict_lengths, and decoder.max_length is 0: the model did "
            "not learn lengths"
        )
    found: dict[str, Search] = {
        "greedy": single(greedy),
        "mask_predict": single(masked),
        "mask_predict_lengths": single(partial(masked, correct_lengths=True)),
    }
    if "lexicon" in decoding.methods:
        tokenizer = read_lang(lang_dir(options))
        words = unigram(corpus_of(options).texts(TRAIN), tokenizer, decoding.lm_scale)
        graph = lexicon_graph(words, len(tokenizer.tokens))

        def lexicon(encoder_out: Tensor, lengths: Tensor) -> list[Hypothesis]:
            log_probs = model.ctc.scores(encoder_out)
            return one_best(log_probs, lengths, graph, decoding.search_beam)

        found["lexicon"] = single(lexicon)
    return encode, {method: found[method] for method in decoding.methods}


def main(exp_dir: Path) -> None:
    """Decode every test set of the experiment's corpus, and fill holes in its texts.

    Args:
        exp_dir: the experiment's folder, trained
    """
    experiment = Experiment(exp_dir)
    decoding = experiment.options(Options).decoding
    decode(exp_dir, Options, build_model, decoder, fill_methods(decoding))
    fill_test_sets(experiment, *load_final(experiment, Options, build_model), decoding)


if __name__ == "__main__":
    cli(main)
