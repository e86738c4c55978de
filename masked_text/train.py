"""Stage 5: train an encoder with CTC, and a decoder that finds masked tokens.

`python masked_text/train.py exp/<corpus>/masked_text/<exp>` trains what its config.yaml says; with
`python utils/torchrun.py --standalone --nproc_per_node N` in place of `python`, on N GPUs.
"""

import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from masked_text.options import LossOptions, Options
from masked_text.watch import make_watch
from plateau.alignment.ctc import best_paths
from plateau.checks.loss import check_cross_entropy
from plateau.config import cli
from plateau.data.corpus import TRAIN
from plateau.data.features import load_statistics
from plateau.data.loading import Batch
from plateau.data.masking import MaskingOptions, generator_for, masked_positions
from plateau.data.pieces import Piece, draw_pieces
from plateau.data.tokens import Tokenizer, encode_words, min_frames, read_lang
from plateau.graphs.ctc import ctc_loss
from plateau.graphs.labels import pad
from plateau.models.masked_text import MaskedTextModel, heard_places
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.interfaces import Loss, LossFunction
from plateau.training.monitor import Baseline
from plateau.training.recipe import Recipe, train


@dataclass(frozen=True)
class Masked:
    """Transcripts of a batch, and what the model is given of them."""

    targets: Tensor  # (N, U), padded with blanks
    tokens: Tensor  # (N, U), with masks
    num_tokens: Tensor  # (N,)
    silent: Tensor  # (N,) bool
    guessed: Tensor  # (N,) bool

    def to(self, device: torch.device) -> "Masked":
        """The same on a device."""
        return Masked(*(tensor.to(device) for tensor in vars(self).values()))


def mask(
    transcripts: Sequence[Sequence[Sequence[int]]],
    mask_id: int,
    options: MaskingOptions,
    step: int,
    generators: Sequence[random.Random],
    *,
    training: bool,
) -> Masked:
    """Mask transcripts, given as the tokens of each word.

    Args:
        transcripts: N.
        mask_id: what stands in the place of a token.
        options: how much.
        step: of the training.
        generators: N, of the draws.
        training: else all are heard, and none is guessed.
    """
    targets = [[token for word in words for token in word] for words in transcripts]
    tokens, silent, guessed = [], [], []
    for words, target, generator in zip(transcripts, targets, generators, strict=True):
        share = options.draw_share(step, generator)
        places = set(masked_positions(words, share, options.unit, generator))
        tokens.append([mask_id if u in places else token for u, token in enumerate(target)])
        silent.append(training and generator.random() < options.silent)
        guessed.append(training and generator.random() < options.guessed)
    return Masked(
        pad(targets),
        pad(tokens),
        torch.tensor([len(target) for target in targets]),
        torch.tensor(silent),
        torch.tensor(guessed),
    )


def aligned_places(
    log_probs: Tensor, lengths: Tensor, transcripts: Sequence[Sequence[Sequence[int]]]
) -> Tensor:
    """The place in the transcript that each frame is of, (N, T), on the best path of CTC.

    Where a text is given in part, as in a hole, and where it is what CTC heard, decoding knows as
    much. Counted by CTC alone, places are off by as many tokens as it has missed so far.

    Args:
        log_probs: (N, T, V).
        lengths: (N,).
        transcripts: N, the tokens of each word.
    """
    places = heard_places(log_probs)
    paths = best_paths(log_probs.cpu(), lengths.cpu(), transcripts, "ctc")
    for row, (_, begun) in zip(places, paths, strict=True):
        if begun:  # else no path fits
            row[: len(begun)] = (torch.tensor(begun) > 0).cumsum(0).to(row) - 1
    return places


def masked_loss(
    found: Tensor, targets: Tensor, masked: Tensor, label_smoothing: float = 0.0
) -> Tensor:
    """Cross entropy of each place (N, U), in nats, zero where no token is masked.

    Args:
        found: log-probabilities (N, U, V).
        targets: (N, U).
        masked: (N, U) bool.
        label_smoothing: share of the target that goes to all tokens.
    """
    losses = F.nll_loss(found.transpose(1, 2), targets, reduction="none")  # (N, U)
    if label_smoothing:
        losses = (1 - label_smoothing) * losses - label_smoothing * found.mean(2)
    return losses.masked_fill(~masked, 0.0)


def lengths_loss(
    found: Tensor, pieces: Sequence[Sequence[Piece]], mask_id: int
) -> tuple[Tensor, int]:
    """Cross entropy of how many tokens masks stand for, in nats, and how many are found wrong.

    Args:
        found: log-probabilities (N, U, max_length + 1).
        pieces: N texts.
        mask_id: the token that is a mask.
    """
    masked = pad([[piece.token == mask_id for piece in row] for row in pieces]).bool()  # (N, U)
    sizes = pad([[piece.size for piece in row] for row in pieces])  # (N, U)
    found, sizes = found[masked.to(found.device)], sizes[masked].to(found.device)
    wrong = int((found.argmax(1) != sizes).sum())
    return F.nll_loss(found, sizes, reduction="sum"), wrong


def make_loss(
    model: MaskedTextModel, tokenizer: Tokenizer, options: LossOptions, masking: MaskingOptions
) -> LossFunction:
    """CTC and cross entropy of the masked tokens, in nats, summed over the batch.

    An utterance's cross entropy counts as if all its tokens were masked: times U over their number,
    as in the bound of masked diffusion (Sahoo et al. 2024, arXiv 2406.07524). The counts are out of
    the masked tokens: with a ``max_length`` of the decoder also the lengths that are wrong.
    """
    steps, mask_id, max_length = model.ctc.steps, model.decoder.mask_id, model.decoder.max_length

    def loss_function(wrapped: nn.Module, batch: Batch) -> Loss:
        step, training = int(steps), wrapped.training
        transcripts = [encode_words(tokenizer, text) for text in batch.texts]
        if training:
            generators = [random.Random(random.getrandbits(64)) for _ in transcripts]
            steps.add_(1)
        else:
            generators = [generator_for(id) for id in batch.ids]
        given = mask(transcripts, mask_id, masking, step, generators, training=training)
        given = given.to(batch.features.device)
        early = training and step < options.after_steps
        pieces = None
        if max_length and not early:
            rows = zip(given.tokens.tolist(), given.num_tokens.tolist(), generators, strict=True)
            pieces = [draw_pieces(row[:u], mask_id, max_length, drawn) for row, u, drawn in rows]
        log_probs, lengths, found, of_lengths = wrapped(
            batch.features,
            batch.lengths,
            given.tokens,
            given.num_tokens,
            given.silent,
            given.guessed,
            None if early else partial(aligned_places, transcripts=transcripts),
            options.joint,
            pieces,
        )  # (N, T', V), (N,), (N, U, V), (N, U', max_length + 1)
        targets = [[token for word in words for token in word] for words in transcripts]
        of_ctc = ctc_loss(log_probs, lengths, targets).sum()
        num_tokens = int(given.num_tokens.sum())
        if early:
            # DistributedDataParallel waits for a gradient of every parameter, if only a zero.
            zero = 0.0 * sum(parameter.sum() for parameter in model.parameters())
            names = ["masked_loss", "masked_right"] + ["wrong_lengths"] * bool(max_length)
            return Loss(of_ctc + zero, num_tokens, dict.fromkeys(names, 0.0), 0)
        masked = given.tokens == mask_id  # (N, U)
        losses = masked_loss(found, given.targets, masked, options.label_smoothing)
        share = masked.sum(1) / given.num_tokens.clamp(min=1)  # (N,)
        of_masks = (losses.sum(1) / share.clamp(min=1e-9)).sum()
        right = (found.argmax(2) == given.targets) & masked
        counts = {
            "masked_loss": float(losses.detach().sum()),
            "masked_right": float(right.sum()),
        }
        if pieces is not None:
            of_pieces, wrong = lengths_loss(of_lengths, pieces, mask_id)
            of_masks = of_masks + of_pieces
            counts["wrong_lengths"] = float(wrong)
        return Loss(
            total=options.ctc_scale * of_ctc + (1 - options.ctc_scale) * of_masks,
            tokens=num_tokens,
            counts=counts,
            frames=int(masked.sum()),
        )

    return loss_function


def unigram_baseline(tokenizer: Tokenizer, texts: Iterable[str]) -> Baseline:
    """The cross entropy of a decoder that knows how often each token is, and no more."""
    counts = Counter(token for text in texts for token in tokenizer.encode(text))
    entropy = -sum(n * math.log(n / counts.total()) for n in counts.values()) / counts.total()
    return Baseline(
        "masked_loss",
        entropy,
        "the entropy of the tokens' frequencies",
        "the decoder knows neither text nor audio; try a higher loss.after_steps, a lower "
        "training.schedule.peak, or a larger share of full masks (masking.full)",
        patience=2,
    )


def build_model(options: Options) -> MaskedTextModel:
    """The untrained model."""
    model = MaskedTextModel(
        options.features.num_mel_bins,
        len(read_lang(lang_dir(options)).tokens),
        options.encoder,
        options.decoder,
    )
    model.ctc.norm.set_statistics(*load_statistics(corpus_of(options).statistics))
    return model


def build(options: Options) -> Recipe:
    """The untrained model, its loss, and what the loss needs."""
    model, tokenizer = build_model(options), read_lang(lang_dir(options))
    return Recipe(
        model,
        make_loss(model, tokenizer, options.loss, options.masking),
        lambda words: min_frames([token for word in words for token in word]),
        check_loss=lambda texts: check_cross_entropy(
            lambda logits, targets, counted: masked_loss(logits.log_softmax(2), targets, counted),
            len(tokenizer.tokens),
        ),
        watch=make_watch(model, tokenizer, aligned_places, options.loss.after_steps),
        baselines=[unigram_baseline(tokenizer, corpus_of(options).texts(TRAIN))],
        all_from=options.loss.after_steps,
    )


def main(exp_dir: Path) -> None:
    """Train an experiment, or go on with it.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    train(exp_dir, Experiment(exp_dir).options(Options), build)


if __name__ == "__main__":
    cli(main)
