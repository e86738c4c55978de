"""Graphs of a text with holes: words that are given, and between them some that are not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, pairwise, product
from typing import NamedTuple

import k2
import torch

from plateau.graphs.ctc import ctc_topology


@dataclass(frozen=True)
class UnknownWords:
    """Words of any spelling, as a hole may have them beside those that are known.

    Args:
        weight: of saying one, nats.
        first: tokens that begin a word.
        inner: tokens that go on with one.
        bare: those of ``first`` that are no word alone, as the lone ``▁`` of characters.
    """

    weight: float
    first: Collection[int]
    inner: Collection[int]
    bare: Collection[int] = ()


class Output(NamedTuple):
    """What an arc of the text's graph says: a token of an item, and whether a word begins."""

    item: int
    token: int
    begins: bool


def hole_graph(
    items: Sequence[tuple[int, ...] | None],
    words: Mapping[tuple[int, ...], float],
    vocab_size: int,
    max_words: int,
    unknown: UnknownWords | None = None,
) -> tuple[k2.Fsa, list[Output]]:
    """One graph that accepts the frame labels of a text whose holes are filled with words.

    It is H ∘ G, as in `plateau.graphs.ctc.lexicon_graph`: H is the CTC topology, and G has a chain
    of arcs for each word that is given, and in a hole one to ``max_words`` of the known words, or
    of others.

    Args:
        items: in their order, the tokens of a word, at least one, or None for a hole.
        words: the tokens of each known word, and the weight (nats) of saying it once.
        vocab_size: V, number of labels with the blank.
        max_words: in a hole.
        unknown: other words; None: there are none.

    Returns:
        the graph, and what its ``aux_labels`` a > 0 mean: output a - 1 begins on that arc
    """
    arcs: list[tuple[int, int, int, int, float]] = []  # source, target, token, aux label, weight
    outputs: list[Output] = []
    states = count(1)  # that there are not yet; 0 starts

    def add(source: int, target: int, output: Output, weight: float = 0.0) -> None:
        outputs.append(output)
        arcs.append((source, target, output.token, len(outputs), weight))

    def add_word(
        sources: list[int], target: int, item: int, word: tuple[int, ...], weight: float
    ) -> None:
        chain = [next(states) for _ in word[1:]] + [target]
        for source in sources:
            add(source, chain[0], Output(item, word[0], True), weight)
        for token, (source, end) in zip(word[1:], pairwise(chain), strict=True):
            add(source, end, Output(item, token, False))

    def add_unknown(sources: list[int], item: int) -> int:
        """The state in which such a word may go on, or end."""
        begun, loop = next(states), next(states)
        for source, token in product(sources, unknown.first):
            target = begun if token in unknown.bare else loop
            add(source, target, Output(item, token, True), unknown.weight)
        for source, token in product((begun, loop), unknown.inner):
            add(source, loop, Output(item, token, False))
        return loop

    sources = [0]  # where the next word begins
    for item, word in enumerate(items):
        if word is not None:
            target = next(states)
            add_word(sources, target, item, word, 0.0)
            sources = [target]
            continue
        ends: list[int] = []
        for _ in range(max_words):
            target = next(states)
            for known, weight in words.items():
                add_word(sources, target, item, known, weight)
            sources = [target] + ([] if unknown is None else [add_unknown(sources, item)])
            ends += sources
        sources = ends
    final = next(states)
    arcs += [(source, final, -1, -1, 0.0) for source in sources]
    arcs.sort()
    text = k2.Fsa(
        torch.tensor([(*arc[:3], 0) for arc in arcs], dtype=torch.int32),
        aux_labels=torch.tensor([arc[3] for arc in arcs], dtype=torch.int32),
    )
    text.scores = torch.tensor([arc[4] for arc in arcs])
    graph = k2.compose(ctc_topology(vocab_size), k2.arc_sort(text))
    return k2.connect(graph), outputs
