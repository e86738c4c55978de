"""Decoding of CTC posteriors: greedy, prefix beam search, and one-best on a graph.

Posteriors are log probabilities (N, T, V) with lengths (N,); blank is label 0.
"""

import heapq
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from plateau.graphs.dense import best_paths_and_outputs
from plateau.graphs.graph import Graphs
from plateau.graphs.labels import BLANK


@dataclass(frozen=True)
class Hypothesis:
    """Tokens of an utterance, with the frames at which their posteriors peak.

    ``frames[i]`` is the encoder frame, within the stretch that the best path gives to token i,
    where the token's posterior is largest (the first of equals).
    """

    tokens: tuple[int, ...]  # no blanks
    frames: tuple[int, ...]  # one per token, strictly increasing
    log_posteriors: tuple[float, ...]  # of each token in its frame, nats
    score: float  # natural log probability, of what is said by the function that made it


def greedy_search(log_probs: Tensor, lengths: Tensor) -> list[Hypothesis]:
    """The likeliest label of each frame, repetitions and blanks removed; score: of that path."""
    return [_hypothesis(frames.argmax(1), frames) for frames in _utterances(log_probs, lengths)]


def one_best(
    log_probs: Tensor, lengths: Tensor, graph: Graphs, search_beam: float = 20.0
) -> list[Hypothesis]:
    """The best path through a decoding graph, score: of that path without it.

    Args:
        log_probs: (N, T, V).
        lengths: (N,).
        graph: of `plateau.graphs.ctc`: with `ctc_topology` this is `greedy_search` by way of a
            graph; with `lexicon_graph` only known words are heard.
        search_beam: states further than this below a frame's best are dropped, in nats. In
            `ctc_topology` any label can follow any other, so that 1 loses nothing.

    Returns:
        N hypotheses; empty, with the score -inf, where no path of the graph is left.
    """
    paths = best_paths_and_outputs(log_probs, lengths, graph, search_beam)
    return [
        _hypothesis(path, frames, begins=[token > 0 for token in outputs])
        if path
        else Hypothesis((), (), (), -math.inf)
        for (path, outputs), frames in zip(paths, _utterances(log_probs, lengths), strict=True)
    ]


def prefix_beam_search(
    log_probs: Tensor,
    lengths: Tensor,
    beam: int = 8,
    max_tokens: int = 20,
    token_beam: float = 10.0,
    nbest: int = 1,
) -> list[list[Hypothesis]]:
    """Token sequences likeliest over all their alignments (Hannun et al. 2014, algorithm 1).

    Args:
        log_probs: (N, T, V).
        lengths: (N,).
        beam: prefixes kept after each frame.
        max_tokens: a frame may extend prefixes by its this many likeliest labels only.
        token_beam: and only by labels at most this many nats below the frame's likeliest. Where
            nothing but blank is left, as in most frames of a peaky model, a frame costs little.
        nbest: hypotheses returned per utterance, at most ``beam``.

    Returns:
        per utterance a list, best first. The score is that of the token sequence, summed over the
        alignments that pruning left; the frames are those of its best alignment.
    """
    return [
        [
            _hypothesis(_align(frames, tokens), frames, score)
            for tokens, score in _search(frames, beam, max_tokens, token_beam)[:nbest]
        ]
        for frames in _utterances(log_probs, lengths)
    ]


def align_tokens(log_probs: Tensor, tokens: Sequence[int]) -> Hypothesis:
    """Tokens as if they had been found: with the frames of their best path; score: of that path.

    Args:
        log_probs: (T, V).
        tokens: no blanks, for which there are frames: `plateau.data.tokens.min_frames`.
    """
    (frames,) = _utterances(log_probs[None], torch.tensor([len(log_probs)]))
    return _hypothesis(_align(frames, tuple(tokens)), frames)


def _utterances(log_probs: Tensor, lengths: Tensor) -> list[np.ndarray]:
    """Split (N, T, V) into N arrays (T_n, V)."""
    arrays = log_probs.detach().double().cpu().numpy()
    return [array[:length] for array, length in zip(arrays, lengths.tolist(), strict=True)]


def _hypothesis(
    path: Sequence[int] | np.ndarray,
    log_probs: np.ndarray,
    score: float | None = None,
    begins: Sequence[bool] | None = None,
) -> Hypothesis:
    """Collapse a path (T,) of frame labels; the score is that of the path if none is given.

    ``begins`` tells for each frame whether a token begins; without it, that is so where the label
    changes, as in CTC.
    """
    path = np.asarray(path, dtype=int)
    scores = log_probs[np.arange(len(path)), path].tolist()  # T
    tokens: list[int] = []
    frames: list[int] = []
    if begins is None:
        begins = np.diff(path, prepend=BLANK) != 0
    for t, label in enumerate(path.tolist()):
        if label != BLANK:
            if begins[t]:
                tokens.append(label)
                frames.append(t)
            elif scores[t] > scores[frames[-1]]:
                frames[-1] = t
    posteriors = tuple(scores[t] for t in frames)
    total = sum(scores) if score is None else score
    return Hypothesis(tuple(tokens), tuple(frames), posteriors, total)


def _search(
    log_probs: np.ndarray, beam: int, max_tokens: int, token_beam: float
) -> list[tuple[tuple[int, ...], float]]:
    """Prefix beam search over (T, V): token sequences with log probabilities, best first."""
    best = log_probs.max(axis=1)  # (T,)
    probs = np.exp(log_probs - best[:, None])  # (T, V), the largest of each frame is 1
    likeliest = (-log_probs).argsort(axis=1, kind="stable")[:, :max_tokens]  # (T, max_tokens)
    smallest = math.exp(-token_beam)

    # Probabilities of the alignments of a prefix that end in blank or in its last token, relative
    # to the best prefix so far, whose log probability is `scale`: so nothing underflows.
    blank_ends: dict[tuple[int, ...], float] = {(): 1.0}
    token_ends: dict[tuple[int, ...], float] = {(): 0.0}
    scale = 0.0
    for t in range(len(probs)):
        frame = probs[t].tolist()
        extensions = [c for c in likeliest[t].tolist() if c != BLANK and frame[c] >= smallest]
        new_blank_ends: dict[tuple[int, ...], float] = {}
        new_token_ends: dict[tuple[int, ...], float] = defaultdict(float)
        for prefix, blank_end in blank_ends.items():
            token_end = token_ends[prefix]
            either = blank_end + token_end
            last = prefix[-1] if prefix else BLANK
            new_blank_ends[prefix] = either * frame[BLANK]
            new_token_ends[prefix] += token_end * frame[last]
            for token in extensions:
                # The same token twice needs a blank between.
                before = blank_end if token == last else either
                new_token_ends[(*prefix, token)] += before * frame[token]
        totals = {
            prefix: token_end + new_blank_ends.get(prefix, 0.0)
            for prefix, token_end in new_token_ends.items()
        }
        kept = heapq.nlargest(beam, totals, key=totals.__getitem__)
        top = totals[kept[0]]
        scale += math.log(top) + float(best[t])
        kept = [prefix for prefix in kept if totals[prefix] > 0]
        blank_ends = {prefix: new_blank_ends.get(prefix, 0.0) / top for prefix in kept}
        token_ends = {prefix: new_token_ends[prefix] / top for prefix in kept}
    return [
        (prefix, scale + math.log(blank_ends[prefix] + token_ends[prefix])) for prefix in blank_ends
    ]


def _align(log_probs: np.ndarray, tokens: tuple[int, ...]) -> np.ndarray:
    """Viterbi: the best path (T,) of frame labels among those that mean ``tokens``."""
    labels = np.full(2 * len(tokens) + 1, BLANK)  # blank, token, blank, token … blank: (S,)
    labels[1::2] = tokens
    scores = log_probs[:, labels]  # (T, S)
    # A blank may be skipped between different tokens.
    skip = np.full(len(labels), -np.inf)
    skip[3::2] = np.where(labels[3::2] != labels[1:-2:2], 0.0, -np.inf)

    total = np.full(len(labels) + 2, -np.inf)  # two pads, so that state s is at s + 2
    steps = np.zeros(scores.shape, dtype=int)  # states advanced on entering frame t
    for t, frame in enumerate(scores):
        if t == 0:  # a path begins in the first blank or the first token
            total[2:4] = 0.0
            total[2:] += frame
            continue
        ways = np.stack([total[2:], total[1:-1], total[:-2] + skip])  # (3, S)
        steps[t] = ways.argmax(axis=0)
        total[2:] = ways.max(axis=0) + frame
    state = len(labels) - 1
    if tokens and total[2 + state - 1] > total[2 + state]:
        state -= 1
    path = np.empty(len(scores), dtype=int)
    for t in range(len(scores) - 1, -1, -1):
        path[t] = labels[state]
        state -= steps[t, state]
    return path
