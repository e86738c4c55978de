"""Against enumeration: of all texts that the holes allow, and all alignments of each."""

import itertools

import pytest
import torch

pytest.importorskip("k2")

from plateau.graphs.dense import best_paths_and_outputs
from plateau.graphs.holes import Output, UnknownWords, hole_graph, number_of, output_of, word_tree

V = 4
KNOWN = {(1, 2): -0.3, (3,): -1.0, (2, 2): -0.1, (1,): -2.0, (1, 2, 3): -0.2}
# 1 and 2 begin words, and 1 alone is none.
SPELT = UnknownWords(-0.7, first=[1, 2], inner=[3], bare=[1])


def collapse(path):
    return tuple(label for label, _ in itertools.groupby(path) if label)


def spelt_words(longest=4):
    """Those of `SPELT`, as many as fit into the frames."""
    for first in (1, 2):
        for number in range(longest):
            if first == 2 or number:
                yield (first, *[3] * number), -0.7


def texts(items, max_words, unknown):
    """Each text that the items allow, as words, with its weight."""
    known = [*KNOWN.items(), *(spelt_words() if unknown else ())]
    choices = [
        [((item,), 0.0)]
        if item is not None
        else [
            (tuple(word for word, _ in words), sum(weight for _, weight in words))
            for number in range(1, max_words + 1)
            for words in itertools.product(known, repeat=number)
        ]
        for item in items
    ]
    for chosen in itertools.product(*choices):
        words = [(n, word) for n, (words, _) in enumerate(chosen) for word in words]
        yield words, sum(weight for _, weight in chosen)


def best_by_enumeration(log_probs, items, max_words, unknown):
    scores = {}
    for path in itertools.product(range(V), repeat=len(log_probs)):
        tokens = collapse(path)
        score = sum(float(log_probs[t, label]) for t, label in enumerate(path))
        scores[tokens] = max(score, scores.get(tokens, -torch.inf))
    return max(
        (scores.get(tuple(t for _, word in words for t in word), -torch.inf) + weight, words)
        for words, weight in texts(items, max_words, unknown)
    )


@pytest.mark.parametrize("unknown", [None, SPELT])
@pytest.mark.parametrize("max_words", [1, 2])
@pytest.mark.parametrize("items", [[None], [(3,), None], [None, (1,)], [(1,), None, (2,)]])
@pytest.mark.parametrize("seed", range(4))
def test_the_best_path_is_that_of_the_best_text(items, max_words, seed, unknown):
    generator = torch.Generator().manual_seed(seed)
    log_probs = (3 * torch.randn(6, V, generator=generator)).log_softmax(1)
    graph = hole_graph(items, word_tree(KNOWN), max_words, unknown)
    ((labels, outputs),) = best_paths_and_outputs(
        log_probs[None], torch.tensor([6]), graph, search_beam=1000.0
    )
    begun = [output_of(output) for output in outputs if output > 0]
    assert collapse(labels) == tuple(output.token for output in begun)
    words = []
    for output in begun:
        if output.begins:
            words.append((output.item, ()))
        words[-1] = (output.item, (*words[-1][1], output.token))
    weight = dict(spelt_words()) | KNOWN if unknown else KNOWN
    found = sum(float(log_probs[t, label]) for t, label in enumerate(labels))
    found += sum(weight[word] for item, word in words if items[item] is None)
    score, _ = best_by_enumeration(log_probs, items, max_words, unknown)
    assert found == pytest.approx(score, abs=1e-4)
    allowed = [each for each, _ in texts(items, max_words, unknown)]
    assert words in allowed


def test_no_path_where_there_are_too_few_frames():
    graph = hole_graph([(1, 1), None], word_tree(KNOWN), 1)
    log_probs = torch.zeros(1, 3, V).log_softmax(2)
    ((labels, _),) = best_paths_and_outputs(log_probs, torch.tensor([3]), graph)
    assert labels == []


def test_words_that_begin_alike_share_arcs():
    tree = word_tree({(1, 2): -0.5, (1, 2, 3): -1.5, (1,): -2.5})
    assert sorted(zip(tree.arcs.tolist(), tree.weights.tolist(), strict=True)) == [
        ([0, -1, 1], -2.5),
        ([0, 1, 1], 0.0),
        ([1, -1, 2], -0.5),
        ([1, 2, 2], 0.0),
        ([2, -1, 3], -1.5),
    ]
    assert tree.num_states == 3


@pytest.mark.parametrize(
    "output", [Output(0, 1, False), Output(7, 499, True), Output(300, 1, True)]
)
def test_outputs_are_read_back(output):
    assert output_of(number_of(*output)) == output
