"""What is looked at while training: does the decoder hear anything? And the posteriors of CTC."""

from collections.abc import Callable

import torch
from torch import Tensor

from plateau.alignment.ctc import align
from plateau.alignment.watch import peakiness, posterior_figure
from plateau.data.loading import Batch
from plateau.data.tokens import Tokenizer, encode_words
from plateau.graphs.labels import pad
from plateau.models.masked_text import MaskedTextModel
from plateau.models.text_decoder import Memory
from plateau.training.interfaces import Watch, Watched

# Nats a token that audio must be worth, after so many steps: what a model that ignores it has from
# overfitting is less.
MARGIN, STEPS = 0.1, 1000


def hearing(
    model: MaskedTextModel, batch: Batch, targets: list[list[int]], places: Tensor
) -> dict[str, float]:
    """Cross entropy in nats a token, of texts that are masked whole, with audio and without.

    Args:
        model: in evaluation mode.
        batch: N utterances.
        targets: N token sequences.
        places: (N, T'), which of its tokens each frame is of.

    Returns:
        ``heard``; ``silent``: the decoder hears nothing; and with several utterances
        ``swapped``: that of the utterance before, the last one's for the first
    """
    encoder_out, lengths = model.ctc.encode(batch.features, batch.lengths)
    memory = model.hear(encoder_out, lengths, places)
    wanted = pad(targets, device=lengths.device)  # (N, U)
    num_tokens = torch.tensor([len(target) for target in targets], device=lengths.device)
    within = torch.arange(wanted.shape[1], device=lengths.device) < num_tokens[:, None]
    masks = torch.full_like(wanted, model.decoder.mask_id)

    def loss(memory: Memory) -> float:
        found = model.decoder(masks, num_tokens, memory)  # (N, U, V)
        right = found.gather(2, wanted.unsqueeze(2)).squeeze(2)
        return -float(right[within].mean())

    losses = {"heard": loss(memory), "silent": loss(memory.silenced())}
    if len(targets) > 1:
        losses["swapped"] = loss(memory.of(torch.arange(len(targets)).roll(1)))
    return losses


def notes(losses: dict[str, float], steps: int) -> list[str]:
    """What is wrong with a decoder that has these losses of `hearing` after steps of its own."""
    if steps < STEPS:
        return []
    deaf = [name for name, loss in losses.items() if loss < losses["heard"] + MARGIN]
    deaf.remove("heard")
    if not deaf:
        return []
    others = " and ".join(f"{losses[name]:.2f} with the audio {name}" for name in deaf)
    return [
        f"the decoder does not listen: its loss is {losses['heard']:.2f} nats a token, and "
        f"{others}; try a higher loss.ctc_scale, masking.full or loss.after_steps"
    ]


def make_watch(
    model: MaskedTextModel,
    tokenizer: Tokenizer,
    places_of: Callable[..., Tensor],
    after_steps: int,
) -> Watch:
    """Whether the decoder listens; peakiness of CTC, and posteriors with the best path.

    Args:
        model: as it is when it is looked at.
        tokenizer: of its tokens.
        places_of: as `masked_text.train.aligned_places`.
        after_steps: steps in which the decoder learns nothing.
    """

    def watch(batch: Batch) -> Watched:
        transcripts = [encode_words(tokenizer, text) for text in batch.texts]
        targets = [[token for word in words for token in word] for words in transcripts]
        log_probs, lengths = model.ctc(batch.features, batch.lengths)  # (N, T', V), (N,)
        losses = hearing(model, batch, targets, places_of(log_probs, lengths, transcripts))
        found = align(model.ctc, batch.features, batch.lengths, transcripts)
        figures = {
            id: posterior_figure(log_probs[n, : lengths[n]], found[n], targets[n], tokenizer.tokens)
            for n, id in enumerate(batch.ids)
        }
        scalars = {f"masked_loss_{name}": loss for name, loss in losses.items()}
        scalars |= peakiness(log_probs, lengths, tokenizer.tokens)
        return Watched(scalars, figures, notes=notes(losses, int(model.ctc.steps) - after_steps))

    return watch
