"""Decoding that is not left to right: what CTC is not sure of is masked, and found by a decoder.

Higuchi et al. 2020, "Mask CTC" (arXiv 2005.08700), section 3.2, after Ghazvininejad et al. 2019,
"Mask-Predict" (arXiv 1904.09324).
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from plateau.decoding.ctc import Hypothesis
from plateau.graphs.labels import BLANK, pad
from plateau.models.text_decoder import Memory, TextDecoder


@torch.no_grad()
def mask_predict(
    decoder: TextDecoder,
    hypotheses: Sequence[Hypothesis],
    memory: Memory,
    threshold: float = 0.99,
    rounds: int = 4,
    order: str = "confidence",
    corrections: int = 0,
) -> list[Hypothesis]:
    """Find tokens of low posterior anew; the others, the length and the frames stay.

    Args:
        decoder: finds masked tokens.
        hypotheses: N, of CTC.
        memory: what is heard.
        threshold: posterior below which a token is masked.
        rounds: see `fill_masks`.
        order: see `fill_masks`.
        corrections: see `fill_masks`.

    Returns:
        N hypotheses; the score is the sum of the log posteriors, those that CTC or the decoder gave
    """
    unsure = [
        [math.exp(posterior) < threshold for posterior in hypothesis.log_posteriors]
        for hypothesis in hypotheses
    ]
    if not any(map(any, unsure)):
        return list(hypotheses)
    device, mask_id = memory.values.device, decoder.mask_id
    tokens = pad(
        [
            [mask_id if masked else token for token, masked in zip(h.tokens, which, strict=True)]
            for h, which in zip(hypotheses, unsure, strict=True)
        ],
        device=device,
    )  # (N, U)
    num_tokens = torch.tensor([len(h.tokens) for h in hypotheses], device=device)
    filled, log_probs = fill_masks(decoder, tokens, num_tokens, memory, rounds, order, corrections)
    found = []
    for h, which, row, scores in zip(
        hypotheses, unsure, filled.tolist(), log_probs.tolist(), strict=True
    ):
        posteriors = tuple(
            score if masked else posterior
            for masked, posterior, score in zip(which, h.log_posteriors, scores, strict=False)
        )
        found.append(
            replace(
                h,
                tokens=tuple(row[: len(h.tokens)]),
                log_posteriors=posteriors,
                score=sum(posteriors),
            )
        )
    return found


@torch.no_grad()
def fill_masks(
    decoder: TextDecoder,
    tokens: Tensor,
    num_tokens: Tensor,
    memory: Memory,
    rounds: int = 4,
    order: str = "confidence",
    corrections: int = 0,
) -> tuple[Tensor, Tensor]:
    """Find masked tokens in some rounds; in each those that are surest then, given those before.

    Args:
        decoder: finds masked tokens.
        tokens: (N, U), with ``decoder.mask_id`` where one is masked.
        num_tokens: (N,).
        memory: what is heard.
        rounds: 0: as many as there are masks, one token a round.
        order: the surest are those of the highest probability (confidence), or whose distribution
            has the lowest entropy (entropy).
        corrections: rounds in which all that was masked is found once more, given all the others.

    Returns:
        tokens (N, U), and the log-probabilities (N, U) of those that were masked, else 0
    """
    masked = tokens == decoder.mask_id  # (N, U)
    scores = memory.values.new_zeros(tokens.shape)  # (N, U)
    left = masked.sum(1)  # (N,)
    rounds = rounds or int(left.max())
    for number in range(rounds):
        still = tokens == decoder.mask_id
        if not still.any():
            break
        best, found, sureness = _likeliest(decoder, tokens, num_tokens, memory, order)
        share = -(-still.sum(1) // (rounds - number))  # (N,), rounded up
        rank = (-sureness.masked_fill(~still, -math.inf)).argsort(1).argsort(1)  # (N, U)
        chosen = still & (rank < share[:, None])
        tokens, scores = found.where(chosen, tokens), best.where(chosen, scores)
    for _ in range(corrections):
        best, found, _ = _likeliest(decoder, tokens, num_tokens, memory, order)
        tokens, scores = found.where(masked, tokens), best.where(masked, scores)
    return tokens, scores


def _likeliest(
    decoder: TextDecoder,
    tokens: Tensor,
    num_tokens: Tensor,
    memory: Memory,
    order: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probability, token and sureness of the likeliest at each place, (N, U) each."""
    log_probs = decoder(tokens, num_tokens, memory)  # (N, U, V)
    log_probs[..., BLANK] = -math.inf  # which no text has
    best, found = log_probs.max(2)
    if order == "confidence":
        return best, found, best
    entropy = torch.special.entr(log_probs.exp()).sum(2)
    return best, found, -entropy
