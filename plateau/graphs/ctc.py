"""Connectionist temporal classification with k2: label graphs, and the full-sum loss.

Blank is label 0. Other topologies and losses: `plateau.graphs.loss`.
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


def segment_topology(vocab_size: int) -> k2.Fsa:
    """One graph that accepts every sequence of segments, each one or more frames of a label.

    Its ``aux_labels`` are the label at the first frame of a segment, and else 0. Silence, label 0,
    has the output ``vocab_size``, for an output 0 is none; it does not follow itself.
    """
    # State 0 starts, state v is in a segment of label v, and in silence if v is vocab_size.
    final = vocab_size + 1
    states = torch.arange(final + 1)
    sources, targets = torch.cartesian_prod(states[:-1], states[1:]).t()
    enters = (sources != vocab_size) | (targets != vocab_size)
    sources, targets = sources[enters], targets[enters]
    loops = states[1:-1]
    outputs = torch.cat([targets.where(targets < final, -torch.ones(())), 0 * loops])
    sources, targets = torch.cat([sources, loops]), torch.cat([targets, loops])
    labels = (targets % vocab_size).where(targets < final, -torch.ones(()))
    arcs = torch.stack([sources, targets, labels, 0 * labels], dim=1).int()  # (A, 4)
    order = sources.argsort(stable=True)
    return k2.arc_sort(k2.Fsa(arcs[order].contiguous(), aux_labels=outputs.int()[order]))


def lexicon_graph(
    words: Mapping[tuple[int, ...], float], vocab_size: int, topology: str = "ctc"
) -> k2.Fsa:
    """One graph that accepts the frame labels of any sequence of known words: H ∘ L.

    H is the CTC topology, or `segment_topology`; L has, for each word, a chain of arcs (Mohri,
    Pereira, Riley 2002, section 3.1), and silence between words where the topology has it.
    ``aux_labels`` are the token on the arc that begins it, and else 0.

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
    final = free + sum(len(tokens) - 1 for tokens in words)
    for tokens, weight in words.items():
        inner = range(free, free + len(tokens) - 1)
        free += len(inner)
        states = [start, *inner, 0]
        arcs += [
            (source, target, token, weight if i == 0 else 0.0)
            for i, (source, target, token) in enumerate(
                zip(states[:-1], states[1:], tokens, strict=True)
            )
        ]
    arcs.append((start, final, -1, 0.0))
    lines = [
        f"{source} {target} {label} {weight}" for source, target, label, weight in sorted(arcs)
    ]
    lexicon = k2.Fsa.from_str("\n".join([*lines, str(final)]), acceptor=True)
    frames = (ctc_topology if topology.startswith("ctc") else segment_topology)(vocab_size)
    graph = k2.connect(k2.compose(frames, k2.arc_sort(lexicon)))
    graph.aux_labels = graph.aux_labels.masked_fill(graph.aux_labels == silence, 0)
    return graph


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
