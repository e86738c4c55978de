"""How many alignments a topology has, exactly: what the first step of training sees.

At uniform posteriors every path weighs the same, so the soft alignment of full-sum training is
C(s, t, T) / C(T), and that share minus 1/V is what gradient descent adds to label s at frame t.
Zeyer, Schlüter, Ney 2021, "Why does CTC result in peaky behavior?" (arXiv 2105.14849), counts by
matrix powers; here it is dynamic programming in Python's integers, and binomials for chains of
segments.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from math import comb

from plateau.graphs.graph import Arc, Graphs, arcs_of
from plateau.graphs.topology import Segment


def count_paths(graph: Graphs, num_frames: int) -> int:
    """C(T): number of paths of ``num_frames`` frames. Arc scores do not count."""
    arcs = arcs_of(graph)
    ways = _forward(arcs, num_frames)[-1]
    return sum(ways[arc.source] for arc in arcs if arc.label == -1)


def shortest_path(graph: Graphs) -> int:
    """The least T, from 1 on, that some path has. There must be a path with a label."""
    arcs = arcs_of(graph)
    endings = {arc.source for arc in arcs if arc.label == -1}
    reached, num_frames = {0}, 0
    while not num_frames or not reached & endings:
        reached = {arc.target for arc in arcs if arc.label != -1 and arc.source in reached}
        num_frames += 1
    return num_frames


def count_label(graph: Graphs, num_frames: int) -> list[Counter[int]]:
    """C(s, t, T): for each frame t, the number of paths that have label s there."""
    arcs = arcs_of(graph)
    prefixes = _forward(arcs, num_frames)
    backwards = [Arc(arc.target, arc.source, arc.label, arc.score) for arc in arcs]
    endings = Counter(arc.source for arc in arcs if arc.label == -1)
    suffixes = _forward(backwards, num_frames, endings)[::-1]
    counts = []
    for t in range(num_frames):
        at_t: Counter[int] = Counter()
        for arc in arcs:
            if arc.label != -1:
                at_t[arc.label] += prefixes[t][arc.source] * suffixes[t + 1][arc.target]
        counts.append(at_t)
    return counts


def count_label_total(graph: Graphs, num_frames: int) -> Counter[int]:
    """C(s, T): how often label s stands in all paths together, over all frames."""
    return sum(count_label(graph, num_frames), Counter())


def paths(graph: Graphs, num_frames: int) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every path of ``num_frames`` frames, one by one: its labels and its score. Exponential."""
    leaving: dict[int, list[Arc]] = {}
    for arc in arcs_of(graph):
        leaving.setdefault(arc.source, []).append(arc)

    def walk(state: int, labels: tuple[int, ...], score: float):
        for arc in leaving.get(state, []):
            if arc.label == -1 and len(labels) == num_frames:
                yield labels, score + arc.score
            elif arc.label != -1 and len(labels) < num_frames:
                yield from walk(arc.target, (*labels, arc.label), score + arc.score)

    yield from walk(0, (), 0.0)


def chain_count_paths(segments: Sequence[Segment], num_frames: int) -> int:
    """C(T) of a chain: binom(T - 1 + O, M + O - 1), for M needed and O optional segments.

    With k segments present there are binom(T - 1, k - 1) ways to share T frames among them;
    Vandermonde's identity sums over the choice of the optional ones. For CTC and N labels without
    repetition this is binom(T + N, 2 N).
    """
    needed, optional = _numbers(segments)
    return comb(num_frames - 1 + optional, needed + optional - 1)


def chain_count_label(segments: Sequence[Segment], label: int, t: int, num_frames: int) -> int:
    """C(s, t, T) of a chain, t from 0: paths up to frame t times paths from it on, by segment."""
    total = 0
    for i, segment in enumerate(segments):
        if segment.label == label:
            needed, optional = _numbers(segments[:i])
            before = comb(t + optional, needed + optional)
            needed, optional = _numbers(segments[i + 1 :])
            total += before * comb(num_frames - 1 - t + optional, needed + optional)
    return total


def chain_count_label_total(segments: Sequence[Segment], label: int, num_frames: int) -> int:
    """C(s, T) of a chain: binom(T + O, M + O) for each needed segment, binom(T + O - 1, M + O) for
    each optional one.

    The place of a segment does not matter. So CTC's N + 1 blanks together have nearly N + 1 times
    the frames of any single label: blank dominates because it is everywhere, not for its own sake.
    """
    needed, optional = _numbers(segments)
    return sum(
        comb(num_frames + optional - segment.optional, needed + optional)
        for segment in segments
        if segment.label == label
    )


def _numbers(segments: Sequence[Segment]) -> tuple[int, int]:
    """How many segments are needed, and how many are optional."""
    optional = sum(segment.optional for segment in segments)
    return len(segments) - optional, optional


def _forward(
    arcs: Sequence[Arc], num_frames: int, start: Counter[int] | None = None
) -> list[Counter[int]]:
    """For 0 … T frames read, the number of ways to be in each state."""
    ways = [Counter({0: 1}) if start is None else start]
    for _ in range(num_frames):
        following: Counter[int] = Counter()
        for arc in arcs:
            if arc.label != -1 and (number := ways[-1][arc.source]):
                following[arc.target] += number
        ways.append(following)
    return ways
