"""Stage 5: train an encoder with CTC.

`python conformer_ctc/train.py exp/<corpus>/conformer_ctc/<exp>` trains what its config.yaml says;
with `python utils/torchrun.py --standalone --nproc_per_node N` in place of `python`, on N GPUs.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from conformer_ctc.options import LossOptions, Options
from plateau.alignment.ctc import align
from plateau.alignment.watch import peakiness, posterior_figure
from plateau.checks.loss import check_frame_loss
from plateau.config import cli
from plateau.data.features import load_statistics
from plateau.data.loading import Batch
from plateau.data.tokens import BLANK_ID, Tokenizer, encode_words, read_lang
from plateau.graphs.dense import soft_alignment
from plateau.graphs.loss import frames_needed, graph_loss
from plateau.graphs.topology import Words
from plateau.models.ctc import CtcModel
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.interfaces import Loss, LossFunction, Watch, Watched
from plateau.training.monitor import nothing_but_blank
from plateau.training.recipe import Recipe, train


def make_loss(model: CtcModel, tokenizer: Tokenizer, options: LossOptions) -> LossFunction:
    """The loss in nats, summed over the batch, and how many frames say blank."""

    def loss_function(wrapped: nn.Module, batch: Batch) -> Loss:
        now = options.at(int(model.steps))

        def loss(log_probs: Tensor, lengths: Tensor, transcripts: Sequence[Words]) -> Tensor:
            return graph_loss(
                log_probs,
                lengths,
                transcripts,
                now.topology,
                now.viterbi,
                now.delay_penalty,
                now.acoustic_scale,
                None if model.prior is None else model.prior.log_prior,
                now.prior.scale,
            )

        transcripts = [encode_words(tokenizer, text) for text in batch.texts]
        log_probs, lengths = wrapped(batch.features, batch.lengths)  # (N, T', V), (N,)
        if model.prior is not None and model.training:
            if options.prior.source == "posteriors":
                shares = log_probs.detach().exp()  # (N, T', V)
            else:
                _, shares = soft_alignment(log_probs, lengths, transcripts, loss)
            model.prior.update(shares, lengths)
        total = loss(log_probs, lengths, transcripts).sum()
        if model.training:
            model.steps += 1
        within = torch.arange(log_probs.shape[1], device=lengths.device) < lengths[:, None]
        blank = (log_probs.argmax(dim=2) == BLANK_ID) & within  # (N, T')
        return Loss(
            total=total,
            tokens=sum(len(word) for words in transcripts for word in words),
            counts={"blank_fraction": float(blank.sum())},
            frames=int(lengths.sum()),
        )

    return loss_function


def check_loss(
    model: CtcModel, tokenizer: Tokenizer, options: LossOptions, texts: Sequence[str]
) -> None:
    """See that the loss of known outputs is what it must be, in plain CTC and after it.

    Priors, penalties and acoustic scales are left out: they change it.

    Raises:
        UserError: it is not.
    """
    plain = replace(
        options,
        acoustic_scale=1.0,
        delay_penalty=0.0,
        prior=replace(options.prior, scale=0.0),
        after_steps=0,
        warm_up_steps=0,
    )
    transcripts = [encode_words(tokenizer, text) for text in texts]
    for now in {plain, replace(plain, topology=options.at(0).topology, viterbi=0.0)}:
        loss = partial(_loss_of, make_loss(model.eval(), tokenizer, now), texts)
        check_frame_loss(loss, now.topology, transcripts, len(tokenizer.tokens), now.viterbi)


class _Says(nn.Module):
    """In a model's place: its log-probabilities are what it is given."""

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        return features, lengths


def _loss_of(
    loss_function: LossFunction,
    texts: Sequence[str],
    log_probs: Tensor,
    lengths: Tensor,
    transcripts: Sequence[Words],
) -> Tensor:
    batch = Batch(log_probs, lengths, list(texts), list(texts), 0.0)
    return loss_function(_Says().eval(), batch).total


def make_watch(model: CtcModel, tokenizer: Tokenizer, options: LossOptions) -> Watch:
    """Peakiness, and posteriors with the best path of the transcript."""

    def watch(batch: Batch) -> Watched:
        transcripts = [encode_words(tokenizer, text) for text in batch.texts]
        log_probs, lengths = model(batch.features, batch.lengths)  # (N, T', V), (N,)
        now = options.at(int(model.steps))
        how = now.topology, now.prior.scale, now.acoustic_scale
        found = align(model, batch.features, batch.lengths, transcripts, *how)
        figures = {
            id: posterior_figure(log_probs[n, : lengths[n]], found[n], labels, tokenizer.tokens)
            for n, id in enumerate(batch.ids)
            for labels in [[token for word in transcripts[n] for token in word]]
        }
        return Watched(peakiness(log_probs, lengths, tokenizer.tokens), figures)

    return watch


def build_model(options: Options) -> CtcModel:
    """The untrained model."""
    model = CtcModel(
        options.features.num_mel_bins,
        len(read_lang(lang_dir(options)).tokens),
        options.encoder,
        options.loss.prior,
    )
    model.norm.set_statistics(*load_statistics(corpus_of(options).statistics))
    return model


def build(options: Options) -> Recipe:
    """The untrained model, its loss, and what the loss needs."""
    tokenizer = read_lang(lang_dir(options))
    loss = options.loss
    model = build_model(options)
    topologies = {loss.at(0).topology, loss.topology}
    return Recipe(
        model,
        make_loss(model, tokenizer, loss),
        lambda words: max(frames_needed(topology, words) for topology in topologies),
        check_loss=partial(check_loss, model, tokenizer, loss),
        watch=make_watch(model, tokenizer, loss),
        baselines=[nothing_but_blank("blank_fraction")],
    )


def main(exp_dir: Path) -> None:
    """Train an experiment, or go on with it.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    train(exp_dir, Experiment(exp_dir).options(Options), build)


if __name__ == "__main__":
    cli(main)
