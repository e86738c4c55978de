"""Graphs of a text with holes: words that are given, and between them some that are not."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import k2
import torch

from plateau.graphs.ctc import ctc_topology


class Output(NamedTuple):
    """What an arc of the text's graph says: token number ``place`` of a word, in an item."""

    item: int
    word: tuple[int, ...]
    place: int


def hole_graph(
    items: Sequence[tuple[int, ...] | None],
    words: Mapping[tuple[int, ...], float],
    vocab_size: int,
    max_words: int,
) -> tuple[k2.Fsa, list[Output]]:
    """One graph that accepts the frame labels of a text whose holes are filled with known words.

    It is H ∘ G, as in `plateau.graphs.ctc.lexicon_graph`: H is the CTC topology, and G has a chain
    of arcs for each word that is given, and in a hole one to ``max_words`` of the known words.

    Args:
        items: in their order, the tokens of a word, at least one, or None for a hole.
        words: the tokens of each known word, and the weight (nats) of saying it once.
        vocab_size: V, number of labels with the blank.
        max_words: in a hole.

    Returns:
        the graph, and what its ``aux_labels`` a > 0 mean: output a - 1 begins on that arc
    """
    arcs: list[tuple[int, int, int, int, float]] = []  # source, target, token, aux label, weight
    outputs: list[Output] = []
    sources, free = [0], 1  # where the next word begins, and the next state that there is not

    def add(item: int, word: tuple[int, ...], weight: float, target: int) -> None:
        nonlocal free
        inner = range(free, free + len(word) - 1)
        free += len(inner)
        for place, (token, end) in enumerate(zip(word, [*inner, target], strict=True)):
            outputs.append(Output(item, word, place))
            for source in sources if place == 0 else [inner[place - 1]]:
                arcs.append((source, end, token, len(outputs), weight if place == 0 else 0.0))

    for item, word in enumerate(items):
        if word is not None:
            target, free = free, free + 1
            add(item, word, 0.0, target)
            sources = [target]
            continue
        ends = []
        for _ in range(max_words):
            target, free = free, free + 1
            for known, weight in words.items():
                add(item, known, weight, target)
            sources = [target]
            ends.append(target)
        sources = ends
    arcs += [(source, free, -1, -1, 0.0) for source in sources]
    arcs.sort()
    text = k2.Fsa(
        torch.tensor([(*arc[:3], 0) for arc in arcs], dtype=torch.int32),
        aux_labels=torch.tensor([arc[3] for arc in arcs], dtype=torch.int32),
    )
    text.scores = torch.tensor([arc[4] for arc in arcs])
    graph = k2.compose(ctc_topology(vocab_size), k2.arc_sort(text))
    return k2.connect(graph), outputs
