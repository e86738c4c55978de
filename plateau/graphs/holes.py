"""Graphs of a text with holes: words that are given, and between them some that are not."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import NamedTuple

import torch
from torch import Tensor

from plateau.graphs.frames import to_ctc_frames
from plateau.graphs.graph import END, Graphs


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


def number_of(item: int, token: int | Tensor, begins: bool | Tensor) -> int | Tensor:
    """An `Output`, or of an item some, as the output of an arc, above 0; `output_of` reads it."""
    return (item * _TOKENS + token) * 2 + begins + 1


def output_of(number: int) -> Output:
    """What an arc's output above 0 means."""
    item, token = divmod((number - 1) // 2, _TOKENS)
    return Output(item, token, bool((number - 1) % 2))


_TOKENS = 2**16  # more than any vocabulary has


@dataclass(frozen=True)
class WordTree:
    """Known words as a tree, in which words that begin alike share arcs (Mohri et al. 2002).

    Args:
        arcs: (A, 3) int64: source, target, token. State 0 begins words, and state -1 ends them.
        weights: (A,), nats: that of a word is on its last arc.
        num_states: of those from 0 on.
    """

    arcs: Tensor
    weights: Tensor
    num_states: int


def word_tree(words: Mapping[tuple[int, ...], float]) -> WordTree:
    """The tree of words, given as their tokens, at least one, and the weight of saying each."""
    inner: dict[tuple[int, ...], int] = {(): 0}  # states by what has been said
    arcs, weights = [], []
    for word, weight in words.items():
        for n in range(1, len(word)):
            if word[:n] not in inner:
                inner[word[:n]] = len(inner)
                arcs.append((inner[word[: n - 1]], inner[word[:n]], word[n - 1]))
                weights.append(0.0)
        arcs.append((inner[word[:-1]], -1, word[-1]))
        weights.append(weight)
    return WordTree(torch.tensor(arcs).view(-1, 3), torch.tensor(weights), len(inner))


def hole_graph(
    items: Sequence[tuple[int, ...] | None],
    words: WordTree,
    max_words: int,
    unknown: UnknownWords | None = None,
) -> Graphs:
    """One graph that accepts the frame labels of a text whose holes are filled with words.

    It is H ∘ G, as in `plateau.graphs.ctc.lexicon_graph`: H is the CTC topology, and G has a chain
    of arcs for each word that is given, and in a hole one to ``max_words`` of the known words, or
    of others.

    Args:
        items: in their order, the tokens of a word, at least one, or None for a hole.
        words: that are known.
        max_words: in a hole.
        unknown: other words; None: there are none.

    Returns:
        the graph; what its outputs above 0 mean, `output_of` tells
    """
    tables: list[Tensor] = []  # (n, 4) of source, target, token, output
    weights: list[Tensor] = []
    states = 1  # that there are; 0 starts

    def add(arcs: list[tuple[int, int, Output]], weight: float = 0.0) -> None:
        rows = [
            (source, target, output.token, number_of(*output)) for source, target, output in arcs
        ]
        tables.append(torch.tensor(rows).view(-1, 4))
        weights.append(torch.full((len(rows),), weight))

    def add_word(sources: list[int], item: int, word: tuple[int, ...]) -> int:
        """The state in which the word ends."""
        chain = range(states, states + len(word))
        add([(source, chain[0], Output(item, word[0], True)) for source in sources])
        inner = zip(word[1:], pairwise(chain), strict=True)
        add([(source, end, Output(item, token, False)) for token, (source, end) in inner])
        return chain[-1]

    def add_known(sources: list[int], item: int) -> int:
        """The state in which any of the known words ends."""
        end = states + words.num_states - 1
        begins = words.arcs[:, 0] == 0
        sources_, targets, tokens = words.arcs.t()
        numbers = number_of(item, tokens, begins)
        targets = (states + targets - 1).where(targets >= 0, torch.tensor(end))
        table = torch.stack([states + sources_ - 1, targets, tokens, numbers], dim=1)  # (A, 4)
        for source in sources:
            first = table[begins].clone()
            first[:, 0] = source
            tables.append(first)
            weights.append(words.weights[begins])
        tables.append(table[~begins])
        weights.append(words.weights[~begins])
        return end

    def add_unknown(sources: list[int], item: int) -> int:
        """The state in which such a word may go on, or end."""
        begun, loop = states, states + 1
        begin = [
            (source, begun if token in unknown.bare else loop, Output(item, token, True))
            for source, token in product(sources, unknown.first)
        ]
        add(begin, unknown.weight)
        inner = product((begun, loop), unknown.inner)
        add([(source, loop, Output(item, token, False)) for source, token in inner])
        return loop

    sources = [0]  # where the next word begins
    for item, word in enumerate(items):
        if word is not None:
            sources = [add_word(sources, item, word)]
            states = sources[0] + 1
            continue
        ends: list[int] = []
        for _ in range(max_words):
            reached = [add_known(sources, item)]
            states = reached[-1] + 1
            if unknown is not None:
                reached.append(add_unknown(sources, item))
                states = reached[-1] + 1
            sources = reached
            ends += sources
        sources = ends
    tables.append(torch.tensor([(source, states, END, 0) for source in sources]))
    weights.append(torch.zeros(len(sources)))
    table = torch.cat(tables)
    order = table[:, 0].argsort(stable=True)
    table = table[order].int()
    starts, ends, labels, outputs = table.t().contiguous()
    splits = torch.tensor([0, len(table)])
    text = Graphs(starts, ends, labels, torch.cat(weights)[order], outputs, splits)
    return to_ctc_frames(text)
