"""The model of windows: its options, loss, training and evaluation.

`python masked_text/window.py exp/<corpus>/masked_text/<exp>` trains and evaluates what its
config.yaml says.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn

from plateau.alignment.windows import windows_of
from plateau.config import UserError, cli
from plateau.data.corpus import TRAIN
from plateau.data.features import load_statistics
from plateau.data.loading import enough_memory
from plateau.data.masking import MaskingOptions
from plateau.data.tokens import Tokenizer, TokenOptions, read_lang
from plateau.data.window_loading import WindowBatch, WindowLoader
from plateau.data.windows import PADDING, WindowOptions, masked_words
from plateau.decoding.scoring import score, write_scores
from plateau.io import write_json
from plateau.models.window import WindowModel, WindowModelOptions
from plateau.models.window_loss import WindowLoss, WindowLossOptions
from plateau.results import make_records
from plateau.text import normalise
from plateau.training.distributed import join
from plateau.training.experiment import Experiment, SpeechOptions, corpus_of, lang_dir
from plateau.training.interfaces import Loss, LossFunction, Watch, Watched
from plateau.training.recipe import Recipe, build_seeded, fit, load_final

METHOD = "window"  # of the folders with scores
WATCHED = 2  # windows that TensorBoard shows


@dataclass(frozen=True)
class WindowRecipeOptions(SpeechOptions):
    """Words of which some are masked, and a window of audio.

    Args:
        tokens: see `TokenOptions`; words
        window: see `WindowOptions`
        window_model: see `WindowModelOptions`
        window_loss: see `WindowLossOptions`
        masking: see `MaskingOptions`; a token is a word here
    """

    tokens: TokenOptions = TokenOptions("word")
    window: WindowOptions = WindowOptions()
    window_model: WindowModelOptions = WindowModelOptions()
    window_loss: WindowLossOptions = WindowLossOptions()
    masking: MaskingOptions = MaskingOptions(full=0.8, silent=0.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens.kind != "word":
            raise UserError(
                f"tokens.kind is {self.tokens.kind}; windows are of words: set it to word"
            )
        for name in ("silent", "guessed"):
            if getattr(self.masking, name):
                raise UserError(
                    f"masking.{name} is {getattr(self.masking, name)}; windows have no such "
                    f"training: set masking.{name}=0"
                )


def audit(options: WindowRecipeOptions) -> list[str]:
    """What stage 4 says of the windows of all sets in use."""
    corpus = corpus_of(options)
    return [
        note
        for name in corpus.used_sets()
        for note in windows_of(corpus, name, options.window).audit()
    ]


def hide(words: Tensor, mask_id: int, options: WindowRecipeOptions, step: int | None) -> Tensor:
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


def make_loss(model: WindowModel, loss: WindowLoss, options: WindowRecipeOptions) -> LossFunction:
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


def make_watch(model: WindowModel, tokenizer: Tokenizer, options: WindowRecipeOptions) -> Watch:
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


def word_counts(options: WindowRecipeOptions, tokenizer: Tokenizer) -> Tensor:
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


def build_model(options: WindowRecipeOptions) -> WindowModel:
    """The untrained model."""
    tokens = read_lang(lang_dir(options)).tokens
    model = WindowModel(options.features.num_mel_bins, tokens, options.window, options.window_model)
    model.norm.set_statistics(*load_statistics(corpus_of(options).statistics))
    return model


def build_window(options: WindowRecipeOptions) -> Recipe:
    """The untrained model, its loss, and what TensorBoard shows."""
    model, tokenizer = build_model(options), read_lang(lang_dir(options))
    loss = WindowLoss(word_counts(options, tokenizer), options.window_loss)
    return Recipe(
        model, make_loss(model, loss, options), watch=make_watch(model, tokenizer, options)
    )


def train_window(exp_dir: Path, options: WindowRecipeOptions) -> None:
    """Train an experiment, or go on with it; in all processes of `torchrun`."""
    workers = join()
    recipe = build_seeded(options, build_window, workers)
    corpus = corpus_of(options)
    dev = corpus.dev_set()  # there may be none
    tokenizer = read_lang(lang_dir(options))
    loaders = {
        name: WindowLoader(
            windows_of(corpus, name, options.window, 0 if name == TRAIN else options.window.words),
            options.features,
            tokenizer,
            num_workers=options.loading.num_workers,
            shuffle=name == TRAIN,
            seed=options.training.seed,
            rank=workers.rank,
            world_size=workers.world_size,
        )
        for name in filter(None, (TRAIN, dev))
    }
    watched = loaders[dev or TRAIN]
    fit(
        exp_dir,
        options,
        recipe,
        (loaders[TRAIN], f"{loaders[TRAIN].total_size} windows"),
        loaders.get(dev),
        watched.some(range(min(WATCHED, watched.total_size))),
        workers,
    )


@torch.no_grad()
def evaluate(
    model: WindowModel,
    options: WindowRecipeOptions,
    set_name: str,
    counts: Tensor,
    decode_dir: Path,
) -> dict[str, float]:
    """Find the words of a set from the audio alone: all of them are masked.

    Each word is in one window. The windows begin where their first words are known to begin, and
    with window.padding=mask the model is told how many words there are; with ``token`` it is not,
    and a word too many or too few is an error. ``ref.trn`` and ``hyp.trn`` have a line for each
    window.

    Args:
        model: trained, in evaluation mode.
        options: of its training.
        set_name: of the corpus.
        counts: `word_counts`, of which the commonest word is the baseline.
        decode_dir: where to write.

    Returns:
        percent: ``masked_words_right``, of all words and of those at each place of a window;
        ``…_with_padding`` counts padding as a word, where the model has to say it;
        ``…_unigram`` are those of the commonest word; ``wer`` and ``cer``
    """
    windows = windows_of(corpus_of(options), set_name, options.window, options.window.words)
    tokenizer = read_lang(lang_dir(options))
    loader = WindowLoader(windows, options.features, tokenizer)
    device, predict = model.bias.device, options.window_model.predict
    references, hypotheses, rows = {}, {}, []
    for batch in loader.batches():
        with enough_memory(batch, loader.memory_option):
            batch = batch.to(device)
            given = hide(batch.words, model.mask_id, options, None)
            found = model(batch.features, batch.lengths, given).logits.argmax(2)  # (N, W)
        places = wanted(batch.words, given, model.mask_id, predict)
        rows.append(torch.stack([batch.words, found, places]).cpu())  # (3, N, W)
        for row, id in enumerate(batch.ids):
            own = places[row]
            references[id] = _text(tokenizer, batch.words[row, own].tolist())
            hypotheses[id] = _text(tokenizer, found[row, own].tolist())
    scores = score(references, hypotheses)
    write_scores(decode_dir, scores)
    words, found, places = torch.cat(rows, 1)  # (N, W) each
    figures = {"wer": scores.wer, "cer": scores.cer}
    figures |= shares_right(words, found, places.bool(), int(counts.argmax()))
    write_json(decode_dir / "metrics.json", make_records(set_name, METHOD, **figures))
    return figures


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode([id for id in ids if id != PADDING])


def shares_right(words: Tensor, found: Tensor, places: Tensor, commonest: int) -> dict[str, float]:
    """How many words are found, in percent; see `evaluate`.

    Args:
        words: (N, W), with PADDING.
        found: (N, W).
        places: (N, W) bool, what was to be found.
        commonest: the word that is said most often.
    """
    right = 100.0 * (words == found)
    said = places & (words != PADDING)
    name = "masked_words_right"
    figures = {name: float(right[said].mean())}
    if not torch.equal(said, places):
        figures[f"{name}_with_padding"] = float(right[places].mean())
    figures[f"{name}_unigram"] = float(100.0 * (words[said] == commonest).float().mean())
    for place in range(words.shape[1]):
        if said[:, place].any():
            figures[f"{name}_place_{place + 1}"] = float(right[:, place][said[:, place]].mean())
    return figures


def evaluate_window(exp_dir: Path) -> Mapping[str, Mapping[str, float]]:
    """Evaluate the final model on all test sets, each into ``decode_<set>_window/``."""
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, WindowRecipeOptions, build_model)
    counts = word_counts(options, read_lang(lang_dir(options)))
    counts[PADDING] = 0  # the baseline says a word
    corpus = corpus_of(options)
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    return {
        name: evaluate(model, options, name, counts, experiment.decode_dir(name, METHOD))
        for name in corpus.test_sets()
    }


def main(exp_dir: Path) -> None:
    """Look at the windows, train on them, and evaluate.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    options = Experiment(exp_dir).options(WindowRecipeOptions)
    for note in audit(options):
        print(f"note: {note}")
    train_window(exp_dir, options)
    for name, figures in evaluate_window(exp_dir).items():
        print(name, ", ".join(f"{key} {value:.2f}" for key, value in figures.items()))


if __name__ == "__main__":
    cli(main)
