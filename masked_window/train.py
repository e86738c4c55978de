"""Stage 5: train a model that finds masked words of a window of audio.

`python masked_window/train.py exp/<corpus>/masked_window/<exp>` trains what its config.yaml says.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from masked_window.options import Options
from plateau.alignment.windows import windows_of
from plateau.config import cli
from plateau.data.corpus import TRAIN
from plateau.data.features import load_statistics
from plateau.data.tokens import Tokenizer, read_lang
from plateau.data.window_loading import WindowBatch, WindowLoader
from plateau.data.windows import PADDING, masked_words
from plateau.models.window import WindowModel
from plateau.models.window_loss import WindowLoss
from plateau.text import normalise
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.interfaces import Loss, LossFunction, Watch, Watched
from plateau.training.recipe import Recipe, fit

WATCHED = 2  # windows that TensorBoard shows


def hide(words: Tensor, mask_id: int, options: Options, step: int | None) -> Tensor:
    """Words with masks in place of some: what a model is given; see `wanted`.

    Args:
        words: (N, W).
        mask_id: what stands in place of a word.
        options: how much is masked. Padding that is a word is masked always: else the model would
            be told how many words there are.
        step: of the training; None: all is masked, as in evaluation.
    """
    given = words.masked_fill(words != PADDING, mask_id)
    if step is not None:
        generator = random.Random(random.getrandbits(64))
        for row, (own, there) in enumerate(zip(words.cpu(), (words != PADDING).cpu(), strict=True)):
            places = there.nonzero().flatten().tolist()
            masked = masked_words(len(places), options.masking, step, generator)
            if options.window_model.predict == "last":
                masked.add(len(places) - 1)
            for n, place in enumerate(places):
                if n not in masked:
                    given[row, place] = own[place]
    if options.window.padding == "token":
        given = given.masked_fill(words == PADDING, mask_id)
    return given


def wanted(words: Tensor, given: Tensor, mask_id: int, predict: str) -> Tensor:
    """Places (N, W) that the model is to find, of words (N, W) and what it is given (N, W)."""
    if predict == "all":
        return given == mask_id
    place = torch.arange(words.shape[1], device=words.device)
    last = (place * (words != PADDING)).amax(1, keepdim=True)  # (N, 1)
    return place == last


def make_loss(model: WindowModel, loss: WindowLoss, options: Options) -> LossFunction:
    """The loss in nats, summed over the words that are to be found.

    The counts are the share of them that is right, and their cross entropy as it is, whatever
    counts how much in the loss.
    """
    weights, predict = options.window_loss, options.window_model.predict

    def loss_function(wrapped: nn.Module, batch: WindowBatch) -> Loss:
        step = int(model.steps) if wrapped.training else None
        given = hide(batch.words, model.mask_id, options, step)
        if wrapped.training:
            model.steps += 1
        places = wanted(batch.words, given, model.mask_id, predict)  # (N, W)
        heard = wrapped(batch.features, batch.lengths, given)
        number = int(places.sum())
        total = loss.words(heard.logits, batch.words, places)
        # With a weight of 0, too: DistributedDataParallel waits for a gradient of all.
        said = places & (batch.words != PADDING)
        total = total + weights.attention * loss.attention(heard.attention, batch.spans, said)
        frames = loss.frames(heard.frames, batch.words, batch.spans, heard.steps)
        total = total + weights.frames * number * frames
        logits, targets = heard.logits[places], batch.words[places]
        return Loss(
            total=total,
            tokens=number,
            counts={
                "right": float((logits.argmax(1) == targets).sum()),
                "cross_entropy": float(F.cross_entropy(logits, targets, reduction="sum")),
            },
            frames=number,
        )

    return loss_function


def make_watch(model: WindowModel, tokenizer: Tokenizer, options: Options) -> Watch:
    """Where in the audio each word is looked for, with all words masked, and what is heard."""

    def watch(batch: WindowBatch) -> Watched:
        given = hide(batch.words, model.mask_id, options, None)
        heard = model(batch.features, batch.lengths, given)
        figures = {}
        for row, id in enumerate(batch.ids):
            there = batch.words[row] != PADDING
            attention = heard.attention[row, there].cpu().numpy()  # (W, T)
            figure = Figure(figsize=(8, 2 + 0.2 * len(attention)), layout="tight")
            axes = figure.subplots()
            axes.imshow(attention, aspect="auto", interpolation="none")
            found = heard.logits[row, there].argmax(1).tolist()
            pairs = zip(batch.texts[row].split(), found, strict=True)
            axes.set_yticks(
                range(len(found)), [f"{word} → {tokenizer.tokens[n]}" for word, n in pairs]
            )
            axes.set_xlabel("step of audio")
            figures[id] = figure
        return Watched(figures=figures)

    return watch


def word_counts(options: Options, tokenizer: Tokenizer) -> Tensor:
    """How often each word is in the training text, (V,); and padding, where it is a word."""
    counts = torch.zeros(len(tokenizer.tokens))
    said = Counter(word for t in corpus_of(options).texts(TRAIN) for word in normalise(t).split())
    for word, number in said.items():
        counts[tokenizer.encode(word)] += number
    if options.window.padding == "token":
        index = windows_of(corpus_of(options), TRAIN, options.window).index
        words = int(index.num_words.sum())
        padding = len(index) * options.window.words - words
        counts[PADDING] = counts.sum() * padding / words
    return counts


def build_model(options: Options) -> WindowModel:
    """The untrained model."""
    tokens = read_lang(lang_dir(options)).tokens
    model = WindowModel(options.features.num_mel_bins, tokens, options.window, options.window_model)
    model.norm.set_statistics(*load_statistics(corpus_of(options).statistics))
    return model


def build(options: Options) -> Recipe:
    """The untrained model, its loss, and what TensorBoard shows."""
    model, tokenizer = build_model(options), read_lang(lang_dir(options))
    loss = WindowLoss(word_counts(options, tokenizer), options.window_loss)
    return Recipe(
        model, make_loss(model, loss, options), watch=make_watch(model, tokenizer, options)
    )


def main(exp_dir: Path) -> None:
    """Train an experiment, or go on with it.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    options = Experiment(exp_dir).options(Options)
    corpus, tokenizer = corpus_of(options), read_lang(lang_dir(options))

    def load(
        name: str, recipe: Recipe, **order: int
    ) -> tuple[WindowLoader, Callable[[], WindowBatch]]:
        step = 0 if name == TRAIN else options.window.words
        loader = WindowLoader(
            windows_of(corpus, name, options.window, step),
            options.features,
            tokenizer,
            num_workers=options.loading.num_workers,
            shuffle=name == TRAIN,
            **order,
        )
        return loader, partial(loader.some, range(min(WATCHED, loader.total_size)))

    fit(exp_dir, options, build, corpus.dev_set(), load)


if __name__ == "__main__":
    cli(main)
