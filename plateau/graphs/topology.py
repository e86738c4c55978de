"""Label topologies: which sequences of frame labels stand for a transcript, as graphs.

Every arc reads one frame; the labels of a path, in order, are an alignment. Most topologies are a
chain of segments, each of which covers one or more neighbouring frames with one label.

Unlike in `k2.ctc_graph`, blank (or silence) may be any label: the toy experiments put it last.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from plateau.config import UserError
from plateau.graphs.graph import END, Arc, Graphs, arcs_of, from_arcs
from plateau.text import read_lines

Words = Sequence[Sequence[int]]  # the labels of each word


class Segment(NamedTuple):
    """One or more frames of the same label."""

    label: int
    optional: bool = False  # may cover no frame at all


def ctc(words: Words, blank: int) -> list[Segment]:
    """Blank may stand around every label and must stand between equal ones: ``B* a+ B* b+ B*``.

    Graves et al. 2006, "Connectionist temporal classification".
    """
    labels = _flat(words)
    segments = [Segment(blank, optional=True)]
    for label, following in zip_longest(labels, labels[1:]):
        segments += [Segment(label), Segment(blank, optional=label != following)]
    return segments


def ctc_without_inner_blank(words: Words, blank: int) -> list[Segment]:
    """CTC with blank only at the ends and between equal labels: ``B* a+ b+ B*``."""
    labels = _flat(words)
    segments = [Segment(blank, optional=True), *map(Segment, labels[:1])]
    for previous, label in pairwise(labels):
        segments += [Segment(blank)] * (previous == label) + [Segment(label)]
    return [*segments, Segment(blank, optional=True)]


def silence(words: Words, blank: int) -> list[Segment]:
    """Silence may stand at word boundaries, of which the ends are two: ``S* a+ b+ S* c+ S*``."""
    return _with_silence(words, Segment(blank, optional=True))


def forced_silence(words: Words, blank: int) -> list[Segment]:
    """Silence must stand at every word boundary: ``S+ a+ b+ S+ c+ S+``."""
    return _with_silence(words, Segment(blank))


def hmm(words: Words, blank: int) -> list[Segment]:
    """Labels with loops and nothing between them: ``a+ b+ c+``.

    Of equal neighbours it has several paths with the same labels; all of them count.
    """
    return [Segment(label) for label in _flat(words)]


TOPOLOGIES: Mapping[str, Callable[[Words, int], list[Segment]]] = {
    topology.__name__: topology
    for topology in (ctc, ctc_without_inner_blank, silence, forced_silence, hmm)
}

# The label topologies of Zeyer, Schlüter, Ney 2021 (arXiv 2105.14849), by name: a topology of the
# above, and a transcript. Blank or silence is the label after the transcript's largest.
STANDARD: Mapping[str, tuple[str, Words]] = {
    "1label": ("ctc", [[0]]),
    "1label_2times": ("ctc", [[0, 0]]),
    "2label": ("ctc", [[0, 1]]),
    "3label_blank": ("ctc", [[0, 1, 2]]),
    "3label_sil": ("silence", [[0, 1, 2]]),
    "4label_2words_blank": ("ctc", [[0, 1, 2], [3]]),
    "4label_2words_sil": ("silence", [[0, 1, 2], [3]]),
}


def segments_of(name: str, words: Words, blank: int) -> list[Segment]:
    """The segments of ``words`` in the topology of that name, one of `TOPOLOGIES`."""
    return TOPOLOGIES[name](words, blank)


def standard_segments(name: str) -> list[Segment]:
    """The segments of one of the `STANDARD` topologies."""
    topology, words = STANDARD[name]
    return segments_of(topology, words, blank=1 + max(_flat(words)))


def chain(segments: Sequence[Segment]) -> Graphs:
    """The graph of a chain of segments. State 0 starts, state i + 1 is in segment i.

    The output of an arc that enters a segment is the segment's label.

    Raises:
        ValueError: every segment is optional, or there is none; the empty alignment is no path.
    """
    return chains([segments])


def chains(many: Sequence[Sequence[Segment]]) -> Graphs:
    """The graphs of N chains, see `chain`, as a batch."""
    if any(all(segment.optional for segment in segments) for segments in many):
        raise ValueError("a chain needs a segment that is not optional")
    # The states of all chains in a row: of each the initial one, those of segments, the final one.
    labels = [label for chain in many for label in (END, *(s.label for s in chain), END)]
    optional = [skip for chain in many for skip in (False, *(s.optional for s in chain), False)]
    labels, optional = np.array(labels, dtype=np.int32), np.array(optional, dtype=bool)  # (S,)
    sizes = np.array([len(segments) + 2 for segments in many], dtype=np.int64)
    finals = sizes.cumsum() - 1
    ways = np.ones(len(labels), dtype=bool)
    ways[finals] = False
    sources = ways.nonzero()[0]
    loops = sources[labels[sources] != END]
    pairs = [(loops, loops)]
    targets = sources + 1
    while len(sources):  # to the next state, and on over those that are optional
        pairs.append((sources, targets))
        over = optional[targets]
        sources, targets = sources[over], targets[over] + 1
    sources, targets = (np.concatenate(ends) for ends in zip(*pairs, strict=True))
    order = np.lexsort((targets, sources))
    sources, targets = sources[order], targets[order]
    first = np.repeat(finals + 1 - sizes, sizes)[sources]  # of an arc's graph
    read = torch.from_numpy(labels[targets])
    outputs = torch.from_numpy(np.where(sources != targets, labels[targets], 0).clip(0))
    return Graphs(
        torch.from_numpy((sources - first).astype(np.int32)),
        torch.from_numpy((targets - first).astype(np.int32)),
        read,
        torch.zeros(len(sources)),
        outputs,
        torch.from_numpy(np.searchsorted(sources, np.append(0, finals + 1))),
    )


def read_fsa(path: Path) -> Graphs:
    """Read a graph from text: arcs ``source target label [score]``, final states ``state [score]``.

    OpenFst's form of an acceptor, except that scores are log weights (nats, higher is better) as
    everywhere here. State 0 is the initial one. k2's own form, in which arcs with label -1 lead to
    the final state, is read too. Lines that are empty or start with ``#`` are skipped.

    Raises:
        UserError: no such file; a line that is neither; a label -1 that does not lead to a final
            state as in k2's form; no path of at least one label.
    """
    arcs, finals = [], {}
    for number, line in enumerate(read_lines(path), start=1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        try:
            if len(fields) > 4:
                raise ValueError
            numbers = [int(field) for field in fields[:3]] if len(fields) > 2 else [int(fields[0])]
            score = float(fields[-1]) if len(fields) in (2, 4) else 0.0
            # k2 has labels of 32 bits, and scores that are float32.
            if min(numbers[:2]) < 0 or not all(-1 <= label < 2**31 for label in numbers[2:]):
                raise ValueError
            if not abs(score) < 1e38:
                raise ValueError
        except ValueError:
            raise UserError(
                f"{path}:{number}: '{line.strip()}' is neither an arc 'source target label "
                "[score]' nor a final state 'state [score]'"
            ) from None
        if len(numbers) == 1:
            finals[numbers[0]] = score
        else:
            arcs.append(Arc(*numbers, score))
    # The final state of k2's form is entered by -1 arcs alone: the states before it are final.
    entered = {arc.target for arc in arcs if arc.label == -1}
    for arc in arcs:
        if arc.label == -1 and arc.target not in finals:
            raise UserError(f"{path}: label -1 leads to {arc.target}, which is not a final state")
        if arc.source in entered or (arc.label != -1 and arc.target in entered):
            raise UserError(
                f"{path}: label -1 leads to a final state, so the arc '{arc.source} {arc.target} "
                f"{arc.label}' cannot enter or leave it too"
            )
    # k2 makes room for every number up to the largest: states are numbered anew, 0 stays first.
    states = sorted({0, *finals, *(state for arc in arcs for state in arc[:2])})
    number_of = {state: i for i, state in enumerate(states)}
    end = len(states)
    renumbered = []
    for source, target, label, score in arcs:
        if label == -1:
            renumbered.append(Arc(number_of[source], end, -1, score + finals[target]))
        else:
            renumbered.append(Arc(number_of[source], number_of[target], label, score))
    renumbered += [Arc(number_of[s], end, -1, finals[s]) for s in finals if s not in entered]
    fsa = from_arcs(renumbered) if finals else None
    if fsa is None or all(arc.label == -1 for arc in arcs_of(fsa)):
        raise UserError(f"{path}: no path with a label leads from state 0 to a final state")
    return fsa


def _flat(words: Words) -> list[int]:
    return [label for word in words for label in word]


def _with_silence(words: Words, boundary: Segment) -> list[Segment]:
    segments = [boundary]
    for word in words:
        segments += [*map(Segment, word), boundary]
    return segments
