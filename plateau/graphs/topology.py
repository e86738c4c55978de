"""Label topologies: which sequences of frame labels stand for a transcript, as k2 FSAs.

Every arc reads one frame; the labels of a path, in order, are an alignment. Most topologies are a
chain of segments, each of which covers one or more neighbouring frames with one label.

Unlike in `k2.ctc_graph`, blank (or silence) may be any label: the toy experiments put it last.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import NamedTuple

import k2
import torch

from plateau.config import UserError
from plateau.text import read_lines

Fsa = k2.Fsa  # for those who do not import k2
Words = Sequence[Sequence[int]]  # the labels of each word


class Arc(NamedTuple):
    """One arc of an FSA; ``label`` -1 leads to the final state and reads no frame."""

    source: int
    target: int
    label: int
    score: float  # log weight, nats


@dataclass(frozen=True)
class Segment:
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


def chain(segments: Sequence[Segment]) -> k2.Fsa:
    """The FSA of a chain of segments. State 0 starts, state i + 1 is in segment i.

    Raises:
        ValueError: every segment is optional, or there is none; the empty alignment is no path.
    """
    if all(segment.optional for segment in segments):
        raise ValueError("a chain needs a segment that is not optional")
    arcs = [Arc(i, i, segment.label, 0.0) for i, segment in enumerate(segments, start=1)]
    final = len(segments) + 1
    for source in range(final):
        for target in range(source + 1, final + 1):
            label = -1 if target == final else segments[target - 1].label
            arcs.append(Arc(source, target, label, 0.0))
            if target < final and not segments[target - 1].optional:
                break
    return from_arcs(arcs)


def from_arcs(arcs: Sequence[Arc]) -> k2.Fsa:
    """An FSA of these arcs; the largest state is the final one."""
    final = max(arc.target for arc in arcs)
    lines = [f"{a.source} {a.target} {a.label} {a.score}" for a in sorted(arcs)]
    return k2.connect(k2.Fsa.from_str("\n".join([*lines, str(final)]), acceptor=True))


def arcs_of(fsa: k2.Fsa) -> list[Arc]:
    """The arcs of a single FSA."""
    sources, targets, labels, _ = fsa.arcs.values().t().tolist()
    return [Arc(*arc) for arc in zip(sources, targets, labels, fsa.scores.tolist(), strict=True)]


def read_fsa(path: Path) -> k2.Fsa:
    """Read an FSA from text: arcs ``source target label [score]``, final states ``state [score]``.

    OpenFst's form of an acceptor, except that scores are log weights (nats, higher is better) as
    everywhere in k2. State 0 is the initial one. k2's own form, in which arcs with label -1 lead to
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


def fsa_vec(fsas: Sequence[k2.Fsa]) -> k2.Fsa:
    """Single FSAs as one FsaVec, which losses take."""
    return k2.create_fsa_vec(list(fsas))


def part_of(fsas: k2.Fsa, part: slice) -> k2.Fsa:
    """Some of an FsaVec's FSAs."""
    return k2.index_fsa(fsas, torch.arange(fsas.shape[0], dtype=torch.int32)[part])


def draw(fsa: k2.Fsa, path: Path, title: str | None = None) -> None:
    """Write the FSA in the language of Graphviz (``dot -Tsvg`` draws it)."""
    Path(path).write_text(k2.to_dot(fsa, title=title).source, encoding="utf-8")


def _flat(words: Words) -> list[int]:
    return [label for word in words for label in word]


def _with_silence(words: Words, boundary: Segment) -> list[Segment]:
    segments = [boundary]
    for word in words:
        segments += [*map(Segment, word), boundary]
    return segments
