import itertools
import math
import re
import subprocess
import sys
from collections import defaultdict

import numpy as np
import pytest
import torch

from plateau.decoding.ctc import Hypothesis, greedy_search, one_best, prefix_beam_search


def collapse(path):
    return tuple(label for label, _ in itertools.groupby(path) if label != 0)


def scores(n=4, t=5, v=4, scale=1.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(n, t, v, generator=generator, dtype=torch.float64)
    return logits.log_softmax(-1)


def enumerate_sequences(log_probs):
    """All token sequences of (T, V): {tokens: (log probability, best path)}."""
    by_tokens = defaultdict(list)
    for path in itertools.product(range(log_probs.shape[1]), repeat=log_probs.shape[0]):
        total = sum(float(log_probs[t, label]) for t, label in enumerate(path))
        by_tokens[collapse(path)].append((total, path))
    return {
        tokens: (np.logaddexp.reduce([total for total, _ in paths]), max(paths)[1])
        for tokens, paths in by_tokens.items()
    }


def peaks(path, log_probs):
    """Frames by definition: within each run of a token, the first of its likeliest frames."""
    frames = []
    for label, run in itertools.groupby(range(len(path)), key=lambda t: path[t]):
        if label != 0:
            frames.append(max(run, key=lambda t: float(log_probs[t, label])))
    return tuple(frames)


LENGTHS = torch.tensor([3, 5, 1, 4])


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_the_likeliest_path(seed):
    log_probs = scores(seed=seed)
    for n, hypothesis in enumerate(greedy_search(log_probs, LENGTHS)):
        frames = log_probs[n, : LENGTHS[n]]
        paths = itertools.product(range(4), repeat=len(frames))
        total, path = max((sum(float(frames[t, c]) for t, c in enumerate(p)), p) for p in paths)
        assert hypothesis.tokens == collapse(path)
        assert hypothesis.frames == peaks(path, frames)
        assert hypothesis.score == pytest.approx(total, abs=1e-9)


def one_hot(path, weights=None):
    probs = torch.full((1, len(path), 4), 0.05)
    for t, label in enumerate(path):
        probs[0, t, label] = 0.85 if weights is None else weights[t]
    return (probs / probs.sum(-1, keepdim=True)).log()


def test_greedy_frames_are_peaks_of_runs():
    path = [0, 1, 1, 1, 0, 1, 2, 2]
    log_probs = one_hot(path, [0.9, 0.5, 0.8, 0.8, 0.9, 0.7, 0.6, 0.9])
    (hypothesis,) = greedy_search(log_probs, torch.tensor([8]))
    assert hypothesis.tokens == (1, 1, 2)  # the blank parts the two 1s
    assert hypothesis.frames == (2, 5, 7)
    # one_hot: of four labels, the others have 0.05 each.
    expected = [math.log(weight / (weight + 0.15)) for weight in (0.8, 0.7, 0.9)]
    assert hypothesis.log_posteriors == pytest.approx(expected)


@pytest.mark.parametrize(
    "search", [greedy_search, lambda *a: [h for (h,) in prefix_beam_search(*a)]]
)
def test_silence_and_no_frames_give_no_tokens(search):
    log_probs = one_hot([0, 0, 0])
    silence = search(log_probs, torch.tensor([3]))
    assert (silence[0].tokens, silence[0].frames) == ((), ())
    assert search(log_probs, torch.tensor([0])) == [Hypothesis((), (), (), 0.0)]


@pytest.mark.parametrize("seed", range(5))
def test_one_best_is_greedy(seed):
    pytest.importorskip("k2")
    from plateau.graphs.ctc import ctc_topology

    log_probs = scores(n=4, t=40, v=12, seed=seed).float()
    lengths = torch.tensor([31, 40, 5, 22])
    greedy = greedy_search(log_probs, lengths)
    best = one_best(log_probs, lengths, ctc_topology(12), search_beam=1.0)
    assert [(h.tokens, h.frames) for h in best] == [(h.tokens, h.frames) for h in greedy]
    assert [h.score for h in best] == pytest.approx([h.score for h in greedy], abs=1e-9)


def weight_of(tokens, words):
    """The best total weight of words that spell ``tokens``; None if there are none."""
    if not tokens:
        return 0.0
    totals = []
    for word, weight in words.items():
        if tokens[: len(word)] == word:
            rest = weight_of(tokens[len(word) :], words)
            if rest is not None:
                totals.append(weight + rest)
    return max(totals, default=None)


@pytest.mark.parametrize("seed", range(5))
def test_one_best_with_a_lexicon_is_the_best_path_of_known_words(seed):
    pytest.importorskip("k2")
    from plateau.graphs.ctc import lexicon_graph

    words = {(1,): -0.5, (2, 3): -0.1, (2, 2): -2.0, (1, 2, 3): -0.3}
    log_probs = scores(n=3, t=6, v=4, seed=seed)
    lengths = torch.tensor([6, 4, 5])
    best = one_best(log_probs, lengths, lexicon_graph(words, 4), search_beam=1e3)
    for frames, length, found in zip(log_probs, lengths, best, strict=True):
        frames = frames[:length]
        paths = {}
        for path in itertools.product(range(4), repeat=len(frames)):
            weight = weight_of(collapse(path), words)
            if weight is not None:
                acoustic = sum(float(frames[t, label]) for t, label in enumerate(path))
                paths[path] = (acoustic + weight, acoustic)
        path = max(paths, key=paths.get)
        assert found.tokens == collapse(path)
        assert found.frames == peaks(path, frames)
        assert found.score == pytest.approx(paths[path][1], abs=1e-5)


@pytest.mark.parametrize(
    ("topology", "pattern", "word_boundary"),
    [
        ("silence", "0*({})0*", "0*"),
        ("forced_silence", "0+({})0+|0+", "0+"),
        ("hmm", "({})", ""),
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_a_lexicon_with_segments_is_the_best_path_of_known_words(
    topology, pattern, word_boundary, seed
):
    """Also of words with a token twice in a row, which collapsing would lose."""
    pytest.importorskip("k2")
    from plateau.graphs.ctc import lexicon_graph

    words = {(1,): -0.5, (2, 3): -0.1, (2, 2): -0.2, (1, 3, 3): -0.3}
    log_probs = scores(n=2, t=5, v=4, seed=seed)
    log_probs[0, :, 2] += 2.0  # so that the word 2 2 is heard
    lengths = torch.tensor([5, 4])
    graph = lexicon_graph(words, 4, topology)
    best = one_best(log_probs, lengths, graph, search_beam=1e3)
    for frames, length, found in zip(log_probs, lengths, best, strict=True):
        found_paths = {}
        for number in range(4):
            for sentence in itertools.product(words, repeat=number):
                spelt = word_boundary.join("".join(f"{c}+" for c in word) for word in sentence)
                accepts = re.compile(pattern.format(spelt)).fullmatch
                for path in itertools.product(range(4), repeat=int(length)):
                    if accepts("".join(map(str, path))):
                        acoustic = sum(float(frames[t, label]) for t, label in enumerate(path))
                        total = acoustic + sum(words[word] for word in sentence)
                        found_paths[path, sentence] = (total, acoustic)
        path, sentence = max(found_paths, key=found_paths.get)
        assert found.tokens == tuple(token for word in sentence for token in word)
        assert found.score == pytest.approx(found_paths[path, sentence][1], abs=1e-5)
        assert [path[t] for t in found.frames] == list(found.tokens)
        posteriors = [float(frames[t, path[t]]) for t in found.frames]
        assert found.log_posteriors == pytest.approx(posteriors)
        assert list(found.frames) == sorted(set(found.frames))


def test_nothing_is_heard_where_no_word_fits():
    pytest.importorskip("k2")
    from plateau.graphs.ctc import lexicon_graph

    log_probs = torch.full((1, 2, 3), -math.inf)
    log_probs[..., 1] = 0  # "1" in both frames, which is no word
    (found,) = one_best(log_probs, torch.tensor([2]), lexicon_graph({(2, 1): 0.0}, 3))
    assert found == Hypothesis((), (), (), -math.inf)


@pytest.mark.parametrize("seed", range(6))
def test_a_wide_prefix_search_is_enumeration(seed):
    log_probs = scores(seed=seed)
    everything = {"beam": 10_000, "max_tokens": 4, "token_beam": 1e3, "nbest": 10_000}
    for n, found in enumerate(prefix_beam_search(log_probs, LENGTHS, **everything)):
        frames = log_probs[n, : LENGTHS[n]]
        expected = enumerate_sequences(frames)
        assert {h.tokens for h in found} == expected.keys()
        assert [h.score for h in found] == sorted((h.score for h in found), reverse=True)
        for h in found:
            total, path = expected[h.tokens]
            assert h.score == pytest.approx(total, abs=1e-9)
            assert h.frames == peaks(path, frames)
            expected_posteriors = [float(frames[t, path[t]]) for t in h.frames]
            assert h.log_posteriors == pytest.approx(expected_posteriors)


def test_prefix_search_finds_what_greedy_misses():
    # Graves et al. 2006, figure 2: blank is likeliest in both frames, yet "1" in sum.
    log_probs = torch.tensor([[[0.6, 0.4], [0.6, 0.4]]]).log()
    lengths = torch.tensor([2])
    assert greedy_search(log_probs, lengths)[0].tokens == ()
    ((best,),) = prefix_beam_search(log_probs, lengths)
    assert best.tokens == (1,)
    assert np.exp(best.score) == pytest.approx(1 - 0.6**2)


def test_scores_of_a_narrow_search_do_not_exceed_the_truth_and_are_close_to_it():
    log_probs = scores(n=1, t=7, v=4, scale=2.0, seed=7)
    expected = enumerate_sequences(log_probs[0])
    (found,) = prefix_beam_search(log_probs, torch.tensor([7]), beam=8, nbest=8)
    assert len(found) == 8
    for h in found:
        assert h.score <= expected[h.tokens][0] + 1e-9
    best = max(expected, key=lambda tokens: expected[tokens][0])
    assert found[0].tokens == best
    assert found[0].score == pytest.approx(expected[best][0], abs=0.05)


def test_pruned_tokens_do_not_begin_but_may_go_on():
    # 2 is never among the likeliest label; 1 is in the first frame only, and its run goes on.
    log_probs = torch.tensor([[[0.3, 0.5, 0.2], [0.5, 0.4, 0.1]]]).log()
    (found,) = prefix_beam_search(log_probs, torch.tensor([2]), max_tokens=1, nbest=8)
    assert {h.tokens: pytest.approx(np.exp(h.score)) for h in found} == {
        (1,): 0.5 * 0.5 + 0.5 * 0.4,
        (): 0.3 * 0.5,
    }
    (found,) = prefix_beam_search(log_probs, torch.tensor([2]), token_beam=0.5, nbest=8)
    assert {h.tokens for h in found} == {(1,), ()}


def test_long_and_sure_utterances_neither_underflow_nor_cost_accuracy():
    path = [0, 1, 1, 0, 2, 2, 0, 0, 2, 3] * 300
    log_probs = one_hot(path).double() * 60  # far below the smallest float in sum
    log_probs = log_probs.log_softmax(-1) - 1.0  # and not normalised
    lengths = torch.tensor([len(path)])
    ((hypothesis,),) = prefix_beam_search(log_probs, lengths)
    (greedy,) = greedy_search(log_probs, lengths)
    assert hypothesis.tokens == greedy.tokens == collapse(path)
    assert hypothesis.frames == greedy.frames
    assert hypothesis.score == pytest.approx(-float(len(path)), rel=1e-6)


def test_impossible_labels():
    log_probs = torch.tensor([[[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.5, 0.0, 0.5]]]).log()
    (found,) = prefix_beam_search(log_probs, torch.tensor([3]), nbest=8)
    assert [(h.tokens, h.frames) for h in found] == [((1, 2), (0, 1))]
    assert found[0].score == pytest.approx(0.0, abs=1e-6)


def test_frames_of_the_prefix_search_are_those_of_k2():
    pytest.importorskip("k2")
    from plateau.graphs.ctc import ctc_graphs
    from plateau.graphs.dense import best_paths

    log_probs = scores(n=4, t=60, v=10, seed=11)
    lengths = torch.tensor([60, 12, 45, 33])
    found = [h for (h,) in prefix_beam_search(log_probs, lengths)]
    paths = best_paths(log_probs, lengths, ctc_graphs([h.tokens for h in found]))
    for n, (h, path) in enumerate(zip(found, paths, strict=True)):
        assert collapse(path) == h.tokens
        assert peaks(path, log_probs[n]) == h.frames


def test_searches_do_without_k2():
    program = (
        "import sys; sys.modules['k2'] = None\n"
        "import torch; from plateau.decoding.ctc import *\n"
        "x = torch.zeros(1, 2, 3).log_softmax(-1); n = torch.tensor([2])\n"
        "greedy_search(x, n); prefix_beam_search(x, n)\n"
        "from plateau.graphs.ctc import ctc_topology; graph = ctc_topology(3)\n"
        "print(len(one_best(x, n, graph)), 'utterance')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1 utterance\n", done.stderr
