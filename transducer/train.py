"""Stage 5: train a transducer.

`python transducer/train.py exp/<corpus>/transducer/<exp>` trains what its config.yaml says; with
`python utils/torchrun.py --standalone --nproc_per_node N` in place of `python`, on N GPUs.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from lhotse import CutSet
from torch import Tensor, nn

from plateau.alignment.files import read_frames
from plateau.alignment.transducer import (
    PADDING,
    align,
    alignment_loss,
    best_path,
    full_sum,
    lattice_log_probs,
)
from plateau.alignment.watch import lattice_figure
from plateau.checks.loss import check_frame_loss
from plateau.config import UserError, cli
from plateau.data.features import load_statistics
from plateau.data.loading import Batch
from plateau.data.tokens import BLANK_ID, Tokenizer, min_frames, read_lang
from plateau.graphs.ctc import ctc_graphs, ctc_loss
from plateau.graphs.dense import best_paths
from plateau.graphs.labels import Topology, pad
from plateau.graphs.transducer import full_loss, pruned_loss, simple_loss
from plateau.models.subsampling import padding_mask
from plateau.models.transducer import TransducerModel, TransducerOutput
from plateau.training import checkpoint
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.interfaces import Loss, LossFunction, Watch, Watched
from plateau.training.monitor import nothing_but_blank
from plateau.training.recipe import Recipe, train
from transducer.options import LossOptions, Options


def transducer_loss(
    model: TransducerModel,
    output: TransducerOutput,
    targets: Sequence[Sequence[int]],
    options: LossOptions,
    warm: float = 1.0,
    frames: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """The loss of each utterance (N,), in nats; auxiliary CTC losses are added.

    Args:
        model: whose joiner to use.
        output: of that model.
        targets: N token sequences.
        options: which loss.
        warm: how far warm-up is, 0 to 1; below 0 only the CTC losses count.
        frames: alignments, for Viterbi training: the frame of each token. Without it they are those
            of the model as it is.
    """
    lengths, topology, penalty = output.lengths, options.topology, options.delay_penalty
    weight = 0.1 + 0.9 * warm
    if warm < 0:
        losses = lengths.new_zeros(lengths.shape, dtype=torch.float32)
    elif options.kind == "viterbi":
        device = output.encoder.device
        losses = weight * alignment_loss(
            model.joiner,
            output,
            pad(targets, device=device),  # (N, U)
            best_frames(model, output, targets, options)
            if frames is None
            else pad(frames, PADDING, device),
            topology,
            options.focal_factor,
            options.label_smoothing,
            options.chunk or None,
        )
    elif options.kind == "full":
        log_probs = model.joiner(output.encoder.unsqueeze(2), output.predictor.unsqueeze(1))
        losses = weight * full_loss(log_probs, targets, lengths, topology, penalty)
    else:
        simple, ranges = simple_loss(
            output.am,
            output.lm,
            targets,
            lengths,
            topology,
            options.am_scale,
            options.lm_scale,
            penalty,
            options.prune_range,
        )
        pruned = pruned_loss(
            output.encoder,
            output.predictor,
            model.joiner,
            ranges,
            targets,
            lengths,
            topology,
            penalty,
        )
        losses = (1 - warm * (1 - options.simple_scale)) * simple + weight * pruned
    for layer, scale in zip(options.ctc_layers, options.ctc_scales, strict=True):
        losses = losses + scale * ctc_loss(output.ctc[layer], lengths, targets)
    return losses


@torch.no_grad()
def best_frames(
    model: TransducerModel,
    output: TransducerOutput,
    targets: Sequence[Sequence[int]],
    options: LossOptions,
) -> Tensor:
    """The frame of each token on the best alignment of the model as it is: (N, U)."""
    device = output.encoder.device
    if options.aligner == "transducer":
        tokens = pad(targets, device=device)  # (N, U)
        blank, label = lattice_log_probs(model, output, tokens)  # (N, T, U + 1), (N, T, U)
        numbers = torch.tensor([len(target) for target in targets], device=device)
        return best_path(blank, label, output.lengths, numbers, options.topology)[0]
    log_probs = output.ctc[options.ctc_layers[-1]]
    paths = best_paths(log_probs, output.lengths, ctc_graphs(targets))
    begin = [
        [t for t, label in enumerate(path) if label and (t == 0 or label != path[t - 1])]
        for path in paths
    ]
    return pad(begin, PADDING, device)


def read_alignments(options: LossOptions) -> dict[str, list[int]] | None:
    """The frame of each token, by utterance; None where the loss does not take them from files."""
    if options.kind != "viterbi" or options.aligner != "file":
        return None
    alignments: dict[str, list[int]] = {}
    for path in options.alignment.split(","):
        alignments |= read_frames(Path(path))
    return alignments


def frames_of(
    ids: Sequence[str],
    targets: Sequence[Sequence[int]],
    alignments: Mapping[str, Sequence[int]],
    files: str,
) -> list[Sequence[int]]:
    """The alignments of utterances with these tokens.

    Raises:
        UserError: one has none, or one of other tokens.
    """
    for id, target in zip(ids, targets, strict=True):
        if id not in alignments:
            raise UserError(f"{files}: no alignment of {id}")
        if len(alignments[id]) != len(target):
            raise UserError(
                f"{files}: {id} has {len(alignments[id])} frames, and its text {len(target)} tokens"
            )
    return [alignments[id] for id in ids]


def make_loss(
    model: TransducerModel,
    tokenizer: Tokenizer,
    options: LossOptions,
    alignments: Mapping[str, Sequence[int]] | None = None,
) -> LossFunction:
    """The loss summed over a batch; see `read_alignments` for ``alignments``."""

    def loss_function(wrapped: nn.Module, batch: Batch) -> Loss:
        targets = [tokenizer.encode(text) for text in batch.texts]
        tokens = pad(targets, device=batch.features.device)  # (N, U)
        output = wrapped(batch.features, batch.lengths, tokens)
        steps = int(model.steps) - options.after_steps
        warm = min(1.0, steps / max(options.warm_up_steps, 1))
        if wrapped.training:
            model.steps += 1
        frames = None
        if alignments is not None:
            frames = frames_of(batch.ids, targets, alignments, options.alignment)
        losses = transducer_loss(model, output, targets, options, warm, frames)
        counts = {}
        if options.ctc_layers:
            blank = output.ctc[options.ctc_layers[-1]].argmax(dim=2) == BLANK_ID  # (N, T')
            inside = ~padding_mask(output.lengths, blank.shape[1])
            counts = {"ctc_blank_fraction": float((blank & inside).sum())}
        # DistributedDataParallel waits for a gradient of every parameter, if only a zero.
        zero = 0.0 * sum(parameter.sum() for parameter in model.parameters())
        return Loss(
            total=losses.sum() + zero,
            tokens=sum(map(len, targets)),
            counts=counts,
            frames=int(output.lengths.sum()),
        )

    return loss_function


def make_watch(model: TransducerModel, tokenizer: Tokenizer, topology: Topology) -> Watch:
    """How flat alignments are, and lattices with the best path of the transcript.

    Flatness is what the sum over all alignments has more than the best one, in nats for each token.
    """

    def watch(batch: Batch) -> Watched:
        targets = [tokenizer.encode(text) for text in batch.texts]
        tokens = pad(targets, device=batch.features.device)  # (N, U)
        output = model(batch.features, batch.lengths, tokens)
        blank, label = lattice_log_probs(model, output, tokens)  # (N, T, U + 1), (N, T, U)
        numbers = torch.tensor([len(target) for target in targets], device=tokens.device)
        lattice = blank, label, output.lengths, numbers, topology
        found = align(model, batch.features, batch.lengths, targets, topology)
        best = -sum(alignment.score for alignment in found)
        scalars = {"flatness_nats": (best - float(full_sum(*lattice).sum())) / int(numbers.sum())}
        figures = {
            id: lattice_figure(
                label[n, : output.lengths[n], : len(target)], found[n], target, tokenizer.tokens
            )
            for n, (id, target) in enumerate(zip(batch.ids, targets, strict=True))
        }
        return Watched(scalars, figures)

    return watch


def frames_needed(options: LossOptions, tokens: Sequence[int]) -> int:
    """The fewest frames that an alignment of these tokens has."""
    if options.ctc_layers:
        return max(1, min_frames(tokens))
    if options.topology != "rnnt":
        return max(1, len(tokens))
    if options.kind == "pruned":  # a frame can have as many labels as its range has steps
        return max(1, math.ceil(len(tokens) / (options.prune_range - 1)))
    return 1


def build_model(options: Options) -> TransducerModel:
    """The untrained model."""
    model = TransducerModel(
        options.features.num_mel_bins,
        len(read_lang(lang_dir(options)).tokens),
        options.encoder,
        options.predictor,
        options.joiner,
        options.loss.ctc_layers,
    )
    model.norm.set_statistics(*load_statistics(corpus_of(options).statistics))
    return model


def build(options: Options) -> Recipe:
    """The model as training starts with it, its loss, and what the loss needs.

    Raises:
        UserError: options that do not fit together; ``init_from`` has no final model, or one of
            other sizes.
    """
    loss = options.loss
    model, tokenizer = build_model(options), read_lang(lang_dir(options))
    if options.init_from:
        experiment = Experiment(Path(options.init_from))
        final = experiment.final_model
        state = checkpoint.load(final, ["model"], f"init_from: make it with {experiment.command}")
        checkpoint.restore_model(model, state, final)
        model.steps.zero_()
    alignments = read_alignments(loss)

    def check(cuts: CutSet) -> None:
        if alignments is not None:
            targets = [tokenizer.encode(cut.supervisions[0].text or "") for cut in cuts]
            frames_of([cut.id for cut in cuts], targets, alignments, loss.alignment)

    def check_loss(texts: Sequence[str]) -> None:
        if loss.ctc_layers:
            transcripts = [[tokenizer.encode(text)] for text in texts]
            check_frame_loss(
                lambda log_probs, lengths, words: ctc_loss(
                    log_probs, lengths, [tokens for (tokens,) in words]
                ),
                "ctc",
                transcripts,
                len(tokenizer.tokens),
            )

    return Recipe(
        model,
        make_loss(model, tokenizer, loss, alignments),
        lambda words: frames_needed(loss, [token for word in words for token in word]),
        check,
        check_loss,
        make_watch(model, tokenizer, loss.topology),
        [nothing_but_blank("ctc_blank_fraction")] if loss.ctc_layers else (),
        idle=() if loss.kind == "pruned" else ("am.", "lm."),
        all_from=loss.after_steps,
    )


def main(exp_dir: Path) -> None:
    """Train an experiment, or go on with it.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    train(exp_dir, Experiment(exp_dir).options(Options), build)


if __name__ == "__main__":
    cli(main)
