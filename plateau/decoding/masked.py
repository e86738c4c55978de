"""Decoding that is not left to right: what CTC is not sure of is masked, and found by a decoder.

Higuchi et al. 2020, "Mask CTC" (arXiv 2005.08700), section 3.2, after Ghazvininejad et al. 2019,
"Mask-Predict" (arXiv 1904.09324).
"""

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

from plateau.data.pieces import expand, in_pieces, piece_places
from plateau.data.tokens import min_frames
from plateau.decoding.ctc import Hypothesis, align_tokens, greedy_search
from plateau.graphs.labels import BLANK, pad
from plateau.models.masked_text import piece_lengths
from plateau.models.subsampling import padding_mask
from plateau.models.text_decoder import Memory, TextDecoder


@torch.no_grad()
def mask_predict(
    decoder: TextDecoder,
    log_probs: Tensor,
    memory: Memory,
    threshold: float = 0.99,
    rounds: int = 4,
    order: str = "confidence",
    corrections: int = 0,
    lengths: bool = False,
) -> list[Hypothesis]:
    """Greedy search of CTC, whose tokens of low posterior are found anew; the others stay.

    Args:
        decoder: finds masked tokens.
        log_probs: (N, T, V), of CTC.
        memory: what is heard, with places in what greedy search finds.
        threshold: posterior below which a token, or that there is none, is masked.
        rounds: see `fill_masks`.
        order: see `fill_masks`.
        corrections: see `fill_masks`.
        lengths: a decoder with a ``max_length`` first finds how many tokens there are in place of
            those that are masked, and whether there are some where CTC says that there is none, but
            is not sure: see `plateau.data.pieces`.

    Returns:
        N hypotheses; the score is the sum of the log posteriors, those that CTC or the decoder gave
    """
    mask_id, hypotheses = decoder.mask_id, greedy_search(log_probs, memory.lengths)
    rows = [
        [
            token if math.exp(posterior) >= threshold else mask_id
            for token, posterior in zip(h.tokens, h.log_posteriors, strict=True)
        ]
        for h in hypotheses
    ]
    given = rows
    if lengths:
        missing = missing_tokens(log_probs, hypotheses, memory, threshold)
        given, memory = find_lengths(decoder, rows, missing, memory)
    device = memory.values.device
    num_tokens = torch.tensor([len(row) for row in given], device=device)
    filled, scores = fill_masks(
        decoder, pad(given, device=device), num_tokens, memory, rounds, order, corrections
    )
    found = []
    for n, (h, row) in enumerate(zip(hypotheses, given, strict=True)):
        tokens, frames = filled[n, : len(row)].tolist(), h.frames
        if row != rows[n]:
            length = int(memory.lengths[n])
            if min_frames(tokens) > length:
                found.append(h)
                continue
            frames = align_tokens(log_probs[n, :length], tokens).frames
        kept = iter(posterior for posterior in h.log_posteriors if math.exp(posterior) >= threshold)
        posteriors = tuple(
            score if token == mask_id else next(kept)
            for token, score in zip(row, scores[n].tolist(), strict=False)
        )
        found.append(Hypothesis(tuple(tokens), frames, posteriors, sum(posteriors)))
    return found


def missing_tokens(
    log_probs: Tensor, hypotheses: Sequence[Hypothesis], memory: Memory, threshold: float
) -> list[set[int]]:
    """Where a token may be missing: after how many tokens of each hypothesis.

    There CTC says blank, and a token other than its neighbours has a posterior of 1 - threshold or
    more.

    Args:
        log_probs: (N, T, V).
        hypotheses: N, of greedy search.
        memory: with places in these.
        threshold: see `mask_predict`.
    """
    tokens = pad([(BLANK, *h.tokens, BLANK) for h in hypotheses], device=log_probs.device)
    places = memory.places.long() + 1  # (N, T), tokens that have begun
    others = log_probs.clone()
    others[..., BLANK] = -math.inf
    for offset in (0, 1):
        neighbours = tokens.gather(1, (places + offset).clamp(max=tokens.shape[1] - 1))  # (N, T)
        others.scatter_(2, neighbours.unsqueeze(2), -math.inf)
    unsure = (others.amax(2).exp() >= 1 - threshold) & (log_probs.argmax(2) == BLANK)  # (N, T)
    unsure &= ~padding_mask(memory.lengths, unsure.shape[1])
    return [
        set(begun[where].tolist()) for begun, where in zip(places.cpu(), unsure.cpu(), strict=True)
    ]


def find_lengths(
    decoder: TextDecoder,
    rows: Sequence[Sequence[int]],
    missing: Sequence[Collection[int]],
    memory: Memory,
) -> tuple[list[list[int]], Memory]:
    """Texts with as many masks as the decoder says, and the places of frames in them.

    Args:
        decoder: with a ``max_length``.
        rows: N texts, with masks.
        missing: where tokens may be missing in each; see `plateau.data.pieces.in_pieces`.
        memory: with places in these texts.
    """
    # So that a piece may double.
    longest = max(1, decoder.max_length // 2)
    pieces = [
        in_pieces(row, decoder.mask_id, longest, places)
        for row, places in zip(rows, missing, strict=True)
    ]
    if not any(piece.token == decoder.mask_id for row in pieces for piece in row):
        return [list(row) for row in rows], memory
    sizes = piece_lengths(decoder, pieces, memory).argmax(2)  # (N, U)
    found, places = [], []
    for row, of_pieces, heard in zip(pieces, sizes.tolist(), memory.places_of_each(), strict=True):
        tokens, where = expand(
            row, decoder.mask_id, of_pieces[: len(row)], piece_places(row, heard)
        )
        found.append(tokens)
        places.append(where)
    return found, memory.at(places)


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
    if not masked.any():
        corrections = 0
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
