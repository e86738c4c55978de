"""Connectionist temporal classification with k2: label graphs, and the full-sum loss.

Blank is label 0. Graphs are built apart from the losses (`plateau.graphs.dense`), so that another
topology needs only another graph.
"""

from collections.abc import Mapping, Sequence

import k2
import torch
from torch import Tensor

from plateau.graphs.dense import full_sum_loss


def ctc_graphs(targets: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> k2.Fsa:
    """Training graphs: FsaVec in which graph n accepts the frame labels that mean ``targets[n]``.

    Targets hold no blanks and may be empty. Graves et al. 2006, section 3.
    """
    return k2.ctc_graph([list(target) for target in targets], device=device)


def ctc_topology(vocab_size: int, device: torch.device | str = "cpu") -> k2.Fsa:
    """One graph that accepts every sequence of frame labels; it has vocab_size² arcs.

    Its ``aux_labels`` are the tokens, 0 where a blank or a repetition gives none.
    """
    return k2.arc_sort(k2.ctc_topo(vocab_size - 1, device=device))


def lexicon_graph(words: Mapping[tuple[int, ...], float], vocab_size: int) -> k2.Fsa:
    """One graph that accepts the frame labels of any sequence of known words: H ∘ L.

    H is the CTC topology; L has, for each word, a chain of arcs from state 0 back to it (Mohri,
    Pereira, Riley 2002, section 3.1).

    Args:
        words: the tokens of each word, at least one, and the weight (nats) of saying it once, such
            as its log probability.
        vocab_size: V, number of labels with the blank.
    """
    arcs = []
    final = 1 + sum(len(tokens) - 1 for tokens in words)
    free = 1  # the next state that no chain has
    for tokens, weight in words.items():
        inner = range(free, free + len(tokens) - 1)
        free += len(inner)
        states = [0, *inner, 0]
        arcs += [
            (source, target, token, weight if i == 0 else 0.0)
            for i, (source, target, token) in enumerate(
                zip(states[:-1], states[1:], tokens, strict=True)
            )
        ]
    arcs.append((0, final, -1, 0.0))
    lines = [
        f"{source} {target} {label} {weight}" for source, target, label, weight in sorted(arcs)
    ]
    lexicon = k2.Fsa.from_str("\n".join([*lines, str(final)]), acceptor=True)
    return k2.connect(k2.compose(ctc_topology(vocab_size), k2.arc_sort(lexicon)))


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
    graphs = ctc_graphs(targets, log_probs.device)
    return full_sum_loss(log_probs, lengths, graphs, delay_penalty)
