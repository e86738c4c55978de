"""See whether the model of an experiment learns to repeat tokens that leave no doubt: a minute."""

import time
from collections.abc import Sequence
from dataclasses import fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from plateau.checks.identity import STEPS, check_identity, coded_batch, make_codes
from plateau.config import T, UserError, cli
from plateau.data.corpus import TRAIN
from plateau.data.loading import Batch
from plateau.data.tokens import UNKNOWN, Tokenizer, read_lang
from plateau.decoding.run import decode_batch
from plateau.decoding.scoring import score
from plateau.models.normalise import GlobalNorm
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import (
    Experiment,
    corpus_of,
    lang_dir,
    options_class,
)

WORDS = 12  # of the training set, those of the fewest tokens


def words_of(texts: Sequence[str], tokenizer: Tokenizer) -> list[str]:
    """The words with the fewest tokens, all of them known.

    Raises:
        UserError: there are none.
    """
    unknown = tokenizer.tokens.index(UNKNOWN)
    tokens = {word: tokenizer.encode(word) for text in texts for word in text.split()}
    known = [word for word, ids in tokens.items() if ids and unknown not in ids]
    if not known:
        raise UserError(f"{TRAIN}: it has no word that all tokens of are known")
    return sorted(known, key=lambda word: (len(tokens[word]), word))[:WORDS]


def sooner(loss: T, steps: int) -> T:
    """The options of a loss with a schedule that is over after half of the steps."""
    late = {"after_steps", "warm_up_steps"} & {field.name for field in fields(loss)}
    return replace(loss, **{name: min(getattr(loss, name), steps // 4) for name in late})


def main(exp_dir: Path, seed: int = 1, steps: int = STEPS) -> None:
    """Train the untrained model of an experiment to repeat words of the training set.

    It is for recipes whose decode.py has a ``decoder``: what is repeated is found by its searches.
    The sizes, tokens and loss are the experiment's; in place of features there are codes of tokens.
    Of its loss, after_steps and warm_up_steps are shortened. What it says is found by the first of
    decoding.methods. Nothing is written.

    Args:
        exp_dir: the experiment's folder, with its config.yaml, after stages 1 to 3
        seed: of the model and the texts
        steps: of training, the most that are taken
    """
    recipe = exp_dir.resolve().parent.name
    options = Experiment(exp_dir).options(options_class(recipe))
    decode = import_module(f"{recipe}.decode")
    if not hasattr(decode, "decoder"):
        raise UserError(
            f"{exp_dir}: {recipe} has no search for tokens, whose result could be compared with "
            "what was said\nits stage 4 has checks of its own"
        )
    options = replace(options, loss=sooner(options.loss, steps))
    tokenizer = read_lang(lang_dir(options))
    words = words_of(list(corpus_of(options).texts(TRAIN)), tokenizer)
    set_seed(seed)
    built = import_module(f"{recipe}.train").build(options)
    model: Any = built.model
    (norm,) = (module for module in model.modules() if isinstance(module, GlobalNorm))
    generator = torch.Generator().manual_seed(seed)
    codes = make_codes(len(tokenizer.tokens), len(norm.mean), generator)
    frames = model.encoder.subsampling_factor

    def batch() -> Batch:
        made = coded_batch(words, tokenizer, codes, frames, generator)
        return replace(made, features=made.features * norm.std + norm.mean)

    decoding = replace(options.decoding, methods=options.decoding.methods[:1])
    encode, searches = decode.decoder(model, options, decoding)

    def wrong() -> float:
        said = batch()
        (found,) = decode_batch(said, len(said.ids), encode, searches)[0].values()
        heard = (tokenizer.decode(nbest[0].tokens) for nbest in found)
        texts = map(tokenizer.reference, said.texts)
        return (
            score(
                dict(zip(said.ids, texts, strict=True)), dict(zip(said.ids, heard, strict=True))
            ).wer
            / 100
        )

    started = time.monotonic()
    taken = check_identity(
        model, built.loss_function, batch, wrong, "its WER", built.idle, built.all_from, steps
    )
    seconds = time.monotonic() - started
    print(f"{exp_dir}: learnt to repeat {len(words)} words in {taken} steps, {seconds:.0f} s")


if __name__ == "__main__":
    cli(main)
