"""From graphs of tokens to graphs of frames: a token lasts for one frame or more.

That is composition with a topology, H ∘ G (Mohri, Pereira, Riley 2002, "Weighted finite-state
transducers in speech recognition"): a state of the result is one of G together with the label of
the last frame. It keeps G's weights and outputs on the arcs that begin a token.
"""

import numpy as np
import torch

from plateau.graphs.graph import END, Graphs, connect
from plateau.graphs.labels import BLANK


def to_ctc_frames(tokens: Graphs) -> Graphs:
    """One graph of the frame labels that mean what a graph of tokens accepts, by CTC.

    Blanks may stand around each token, and must stand between equal ones.

    Args:
        tokens: one graph, whose labels are not blank.
    """
    return _read_frames(tokens, blank=True, silence=None)


def to_segment_frames(tokens: Graphs, silence: int) -> Graphs:
    """The same without blanks: each token is a segment, and equal ones may follow each other.

    Args:
        tokens: one graph.
        silence: its label for silence, of which frames have label 0. It has no output, and does not
            follow itself.
    """
    return _read_frames(tokens, blank=False, silence=silence)


def _read_frames(tokens: Graphs, blank: bool, silence: int | None) -> Graphs:
    sources, targets, labels, weights, outputs = (x.numpy() for x in tokens.of_arcs)
    final = int(targets.max())
    size = 1 + int(labels.max())  # of the labels
    reads = labels != END
    # A state: one of the tokens' graph, and which token is on. No token, 0, is blank, or the start.
    entered = np.unique(targets[reads].astype(np.int64) * size + labels[reads])
    still = np.arange(final, dtype=np.int64) * size if blank else np.zeros(1, np.int64)
    states = np.union1d(entered, still)  # sorted, so those of a tokens' state are together
    state, last = states // size, states % size
    begins = np.searchsorted(state, np.arange(final + 1))

    # Every arc leaves each of the states of its source.
    counts = begins[sources + 1] - begins[sources]
    arc = np.repeat(np.arange(len(sources)), counts)
    source = (
        np.arange(len(arc)) - np.repeat(counts.cumsum() - counts, counts) + begins[sources[arc]]
    )
    repeats = last[source] == labels[arc]
    allowed = ~repeats if blank else ~(repeats & (labels[arc] == silence))
    arc, source = arc[allowed], source[allowed]
    ends = labels[arc] == END
    target = np.searchsorted(states, targets[arc].astype(np.int64) * size + labels[arc])
    target[ends] = len(states)

    # A token lasts, and so does blank, which may come after any token.
    lasting = (states > 0).nonzero()[0] if not blank else np.arange(len(states))
    to_blank = (last > 0).nonzero()[0] if blank else np.zeros(0, np.int64)
    blanks = np.searchsorted(states, state[to_blank] * size)
    nothing = np.zeros(len(lasting) + len(to_blank))
    source = np.concatenate([source, lasting, to_blank])
    target = np.concatenate([target, lasting, blanks])
    label = np.concatenate([labels[arc], last[lasting], np.full(len(to_blank), BLANK)])
    weight = np.concatenate([weights[arc], nothing.astype(weights.dtype)])
    output = np.concatenate([outputs[arc].clip(0), nothing.astype(outputs.dtype)])
    if silence is not None:
        output[label == silence] = 0
        label[label == silence] = BLANK
    order = np.lexsort((target, source))
    columns = (source.astype(np.int32), target.astype(np.int32), label.astype(np.int32))
    values = (torch.from_numpy(x[order]) for x in (*columns, weight, output))
    return connect(Graphs(*values, torch.tensor([0, len(order)])))
