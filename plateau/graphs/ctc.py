"""Connectionist temporal classification: label graphs, and the full-sum loss.

Blank is label 0. Other topologies and losses: `plateau.graphs.loss`.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from plateau.graphs.dense import full_sum_loss
from plateau.graphs.frames import to_ctc_frames, to_segment_frames
from plateau.graphs.graph import END, Graphs, token_graph
from plateau.graphs.labels import BLANK
from plateau.graphs.topology import Segment, chains, ctc


def ctc_graphs(targets: Sequence[Sequence[int]]) -> Graphs:
    """Training graphs: graph n of N accepts the frame labels that mean ``targets[n]``.

    Targets hold no blanks and may be empty. Graves et al. 2006, section 3.
    """
    # Without labels, the optional segments around them would leave no path.
    return chains([ctc([target], BLANK) if target else [Segment(BLANK)] for target in targets])


def ctc_topology(vocab_size: int) -> Graphs:
    """One graph that accepts every sequence of frame labels; it has about vocab_size² arcs.

    Its outputs are the tokens, 0 where a blank or a repetition gives none.
    """
    return to_ctc_frames(_any_sequence(vocab_size - 1))


def segment_topology(vocab_size: int) -> Graphs:
    """One graph that accepts every sequence of segments, each one or more frames of a label.

    Its outputs are the label at the first frame of a segment, and else 0. Silence, label 0, has
    none; it does not follow itself.
    """
    return to_segment_frames(_any_sequence(vocab_size), silence=vocab_size)


def lexicon_graph(
    words: Mapping[tuple[int, ...], float], vocab_size: int, topology: str = "ctc"
) -> Graphs:
    """One graph that accepts the frame labels of any sequence of known words: H ∘ L.

    H are the frames of CTC, or segments; L has, for each word, a chain of arcs (Mohri, Pereira,
    Riley 2002, section 3.1), and silence between words where the topology has it. Outputs are the
    token on the arc that begins it, and else 0.

    Args:
        words: the tokens of each word, at least one, and the weight (nats) of saying it once, such
            as its log probability.
        vocab_size: V, number of labels with the blank.
        topology: one of `plateau.graphs.topology.TOPOLOGIES`; of CTC without inner blanks the graph
            is that of CTC.
    """
    silence = vocab_size
    start = 1 if topology == "forced_silence" else 0  # of words; they end in state 0
    arcs = [(0, start, silence, 0.0)] if "silence" in topology else []
    free = start + 1  # the next state that no chain has
    for tokens, weight in words.items():
        states = [start, *range(free, free + len(tokens) - 1), 0]
        free += len(tokens) - 1
        arcs += [
            (source, target, token, weight if i == 0 else 0.0)
            for i, ((source, target), token) in enumerate(
                zip(pairwise(states), tokens, strict=True)
            )
        ]
    arcs.append((start, free, END, 0.0))
    lexicon = token_graph(arcs)
    if topology.startswith("ctc"):
        return to_ctc_frames(lexicon)
    return to_segment_frames(lexicon, silence)


def ctc_loss(
    log_probs: Tensor,
    lengths: Tensor,
    targets: Sequence[Sequence[int]],
    delay_penalty: float = 0.0,
) -> Tensor:
    """CTC loss in nats, one per utterance: `full_sum_loss` with `ctc_graphs`.

    The gradient is exact for scores that are not normalised too, unlike that of
    `torch.nn.functional.ctc_loss` (pytorch#52241).
    """
    return full_sum_loss(log_probs, lengths, ctc_graphs(targets), delay_penalty)


def _any_sequence(last: int) -> Graphs:
    """One graph of tokens: any sequence of 1 … ``last``."""
    labels = torch.tensor([*range(1, last + 1), END], dtype=torch.int32)
    sources, targets = torch.zeros_like(labels), (labels == END).int()
    weights = torch.zeros(len(labels))
    return Graphs(
        sources, targets, labels, weights, labels.clamp(min=0), torch.tensor([0, last + 1])
    )
