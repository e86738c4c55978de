import itertools
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from plateau.config import UserError
from plateau.decoding.transducer import (
    Hypothesis,
    fast_beam_search,
    greedy_search,
    modified_beam_search,
)
from plateau.models.joiner import Joiner, JoinerOptions
from plateau.models.predictor import PredictorOptions, build_predictor
from tests.decoding.enumeration import Scores, emission_scores, enumerate_sequences, step

J = 5
TOPOLOGIES = ["rnnt", "rna", "constrained"]
PREDICTORS = [("stateless", 1), ("stateless", 2), ("lstm", 1)]
LENGTHS = torch.tensor([3, 5, 1, 4, 0])


@dataclass
class Model:
    predictor: nn.Module
    joiner: nn.Module
    vocab_size: int


def make_model(kind="stateless", context=2, v=3, seed=0, joiner="additive", blank_bias=0.0):
    torch.manual_seed(seed)
    predictor = build_predictor(v, PredictorOptions(kind=kind, dim=4, context=context)).eval()
    network = Joiner(J, 4, v, JoinerOptions(kind=joiner, dim=J)).eval()
    with torch.no_grad():
        for module in (predictor, network):  # torch's initial values say the same of all labels
            for parameter in module.parameters():
                parameter.copy_(torch.randn(parameter.shape))
        # Blank first: of `separate_blank`, the first score is that of not being blank.
        network.output.bias[0] += blank_bias if joiner == "additive" else -blank_bias
    return Model(predictor, network, v)


def make_encoder(n=5, t=5, seed=0):
    return torch.randn(n, t, J, generator=torch.Generator().manual_seed(seed))


def beam_by_hand(model, frames, topology, beam, blank_penalty=0.0):
    """Beam search with a dictionary; what `constrained` leaves out is as documented."""
    scores = Scores(model, frames, blank_penalty)
    hypotheses = {(): 0.0}
    for t in range(len(frames)):
        candidates = [
            (total + scores(t, tokens)[label], tokens, label)
            for tokens, total in hypotheses.items()
            for label in range(1, model.vocab_size)
        ]
        if topology == "constrained":
            candidates = sorted(candidates, reverse=True)[: 2 * beam]
        ways = defaultdict(list)
        for _, tokens, label in candidates:
            total = hypotheses[tokens] + step(scores, topology, t, tokens, label)
            ways[(*tokens, label)].append(total)
        for tokens, total in hypotheses.items():
            ways[tokens].append(total + scores(t, tokens)[0])
        totals = {tokens: np.logaddexp.reduce(way) for tokens, way in ways.items()}
        kept = sorted(totals, key=totals.__getitem__, reverse=True)[:beam]
        hypotheses = {tokens: totals[tokens] for tokens in kept}
    return hypotheses


def same(a, b):
    return (
        a.tokens == b.tokens
        and a.frames == b.frames
        and a.log_posteriors == pytest.approx(b.log_posteriors, abs=1e-5)
        and a.score == pytest.approx(b.score, abs=1e-5)
    )


@pytest.mark.parametrize("joiner", ["additive", "separate_blank"])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("kind", "context"), PREDICTORS)
def test_a_large_beam_finds_every_sequence_with_its_probability(kind, context, topology, joiner):
    for seed, penalty in [(0, 0.0), (1, 0.7)]:
        model = make_model(kind, context, v=3, seed=seed, joiner=joiner, blank_bias=1.0)
        encoder = make_encoder(seed=seed)
        found = modified_beam_search(
            model, encoder, LENGTHS, beam=64, blank_penalty=penalty, nbest=64, topology=topology
        )
        for frames, length, hypotheses in zip(encoder, LENGTHS, found, strict=True):
            expected = enumerate_sequences(model, frames[:length], topology, penalty)
            assert {h.tokens for h in hypotheses} == set(expected)
            assert len(hypotheses) == len(expected)  # none twice
            scores = [h.score for h in hypotheses]
            assert scores == sorted(scores, reverse=True)
            for h in hypotheses:
                total, _, emitting = expected[h.tokens]
                assert h.score == pytest.approx(total, abs=1e-5)
                assert h.frames == emitting
                said = emission_scores(model, frames, h.tokens, h.frames)
                assert h.log_posteriors == pytest.approx(said, abs=1e-5)


@pytest.mark.parametrize("topology", ["rna", "constrained"])
def test_all_sequences_together_have_probability_one(topology):
    # In `rna` every frame has one label or blank; of `constrained` the sum is less.
    model = make_model(v=4)
    (found,) = modified_beam_search(
        model, make_encoder(1, 4), torch.tensor([4]), beam=121, nbest=121, topology=topology
    )
    total = np.logaddexp.reduce([h.score for h in found])
    assert len(found) == 1 + 3 + 9 + 27 + 81
    assert total == pytest.approx(0.0, abs=1e-5) if topology == "rna" else total < -0.1


@pytest.mark.parametrize("beam", [1, 2, 3, 5])
@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("kind", "context"), PREDICTORS)
def test_a_small_beam_prunes_as_a_dictionary_would(kind, context, topology, beam):
    for seed in range(4):
        model = make_model(kind, context, v=4, seed=seed, blank_bias=1.0)
        encoder = make_encoder(3, 9, seed)
        lengths = torch.tensor([9, 2, 7])
        found = modified_beam_search(
            model, encoder, lengths, beam, blank_penalty=0.2, nbest=beam, topology=topology
        )
        for frames, length, hypotheses in zip(encoder, lengths, found, strict=True):
            expected = beam_by_hand(model, frames[:length], topology, beam, blank_penalty=0.2)
            assert [h.tokens for h in hypotheses] == list(expected)
            assert [h.score for h in hypotheses] == pytest.approx(list(expected.values()), abs=1e-5)
            for h in hypotheses:
                assert len(h.frames) == len(h.tokens)
                said = emission_scores(model, frames, h.tokens, h.frames)
                assert h.log_posteriors == pytest.approx(said, abs=1e-5)
                assert all(a < b for a, b in itertools.pairwise((-1, *h.frames, int(length))))


def greedy_by_hand(model, frames, topology, max_labels, penalty):
    scores = Scores(model, frames, penalty)
    tokens, emitting, total = (), (), 0.0
    for t in range(len(frames)):
        for count in range((max_labels if topology == "rnnt" else 1) + 1):
            if count == (max_labels if topology == "rnnt" else 1):  # full: blank comes unasked
                if topology != "rna":
                    total += scores(t, tokens, penalty=False)[0]
                break
            label = int(scores(t, tokens).argmax())
            total += scores(t, tokens)[label]
            if label == 0:
                break
            tokens, emitting = (*tokens, label), (*emitting, t)
    return Hypothesis(tokens, emitting, emission_scores(model, frames, tokens, emitting), total)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(("kind", "context"), PREDICTORS)
def test_greedy_is_a_loop(kind, context, topology):
    several = 0
    for seed, max_labels, penalty in [(0, 5, 0.0), (1, 1, 0.0), (2, 3, 1.0), (3, 2, -1.0)]:
        model = make_model(kind, context, v=4, seed=seed, blank_bias=0.5)
        encoder = make_encoder(t=7, seed=seed)
        lengths = LENGTHS + torch.tensor([0, 2, 0, 1, 0])
        found = greedy_search(model, encoder, lengths, topology, penalty, max_labels)
        for frames, length, hypothesis in zip(encoder, lengths, found, strict=True):
            expected = greedy_by_hand(model, frames[:length], topology, max_labels, penalty)
            assert same(hypothesis, expected)
            several += len(set(hypothesis.frames)) < len(hypothesis.frames)
            assert list(hypothesis.frames) == sorted(hypothesis.frames)
    assert (several > 0) == (topology == "rnnt")


def scripted_model(script):
    """A model that says ``script[t][last label]`` with a probability of nearly one."""
    vocab_size = 3
    model = make_model("stateless", 1, v=vocab_size)
    code = len(script) * vocab_size  # one unit for each frame and last label
    model.joiner = Joiner(code, vocab_size, vocab_size, JoinerOptions(dim=code)).eval()
    model.predictor = build_predictor(
        vocab_size, PredictorOptions(dim=vocab_size, context=1)
    ).eval()
    with torch.no_grad():
        model.predictor.embedding.weight.copy_(torch.eye(vocab_size))
        model.predictor.convolution.weight.copy_(torch.eye(vocab_size).unsqueeze(2))
        # The unit (t, last) is near 1 only if both frame and last label agree: 20 + 20 - 30 > 0.
        model.joiner.predictor.weight.copy_(20 * torch.eye(vocab_size).repeat(len(script), 1))
        model.joiner.output.weight.zero_()
        for t, labels in enumerate(script):
            for last, label in enumerate(labels):
                model.joiner.output.weight[label, t * vocab_size + last] = 10.0
        # tanh is -1 in all other units: with the bias they say nothing.
        model.joiner.output.bias.copy_(model.joiner.output.weight.sum(1))
    encoder = torch.full((1, len(script), len(script), vocab_size), -30.0)
    for t in range(len(script)):
        encoder[0, t, t] += 20.0
    return model, encoder.flatten(2)


def test_greedy_emits_several_labels_a_frame_where_the_model_says_so():
    # Frame 0: 1, then 2 after 1, then blank after 2; frame 1: blank; frame 2: 1 after 2.
    model, encoder = scripted_model([[1, 2, 0], [0, 0, 0], [2, 0, 1]])
    lengths = torch.tensor([3])
    (found,) = greedy_search(model, encoder, lengths)
    assert (found.tokens, found.frames) == ((1, 2, 1), (0, 0, 2))
    assert -0.1 < found.score <= 0
    (found,) = greedy_search(model, encoder, lengths, max_labels=1)
    assert (found.tokens, found.frames) == ((1,), (0,))
    (found,) = greedy_search(model, encoder, lengths, topology="rna")
    assert (found.tokens, found.frames) == ((1,), (0,))


def test_greedy_leaves_a_frame_that_never_ends():
    model, encoder = scripted_model([[1, 1, 1]])
    (found,) = greedy_search(model, encoder, torch.tensor([1]), max_labels=4)
    assert (found.tokens, found.frames) == ((1, 1, 1, 1), (0, 0, 0, 0))
    assert found.score < -10  # the blank that had to come


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_blank_penalty_gives_more_labels(topology):
    model = make_model(v=4, blank_bias=2.0)
    encoder, lengths = make_encoder(6, 12), torch.full((6,), 12)

    def labels(penalty):
        greedy = greedy_search(model, encoder, lengths, topology, penalty)
        beam = modified_beam_search(model, encoder, lengths, 4, penalty, topology=topology)
        return (
            sum(len(h.tokens) for h in greedy),
            sum(len(hypotheses[0].tokens) for hypotheses in beam),
        )

    assert labels(-100.0) == (0, 0)
    assert all(0 < a < b for a, b in zip(labels(0.0), labels(2.0), strict=True))
    greedy, beam = labels(100.0)
    assert beam == 6 * 12
    assert greedy == 6 * 12 * (5 if topology == "rnnt" else 1)


SEARCHES = {
    "greedy": lambda *a: [[h] for h in greedy_search(*a)],
    "greedy rna": lambda *a: [[h] for h in greedy_search(*a, topology="rna")],
    "beam": lambda *a: modified_beam_search(*a, beam=3, nbest=3),
    "beam constrained": lambda *a: modified_beam_search(
        *a, beam=3, nbest=3, topology="constrained"
    ),
}


@pytest.mark.parametrize("name", SEARCHES)
@pytest.mark.parametrize("kind", ["stateless", "lstm"])
def test_batches_and_padding_change_nothing(name, kind):
    search = SEARCHES[name]
    model = make_model(kind, v=4, blank_bias=0.5)
    encoder = make_encoder()
    together = search(model, encoder, LENGTHS)
    for n, length in enumerate(LENGTHS):
        (alone,) = search(model, encoder[n : n + 1, :length], LENGTHS[n : n + 1])
        assert len(alone) == len(together[n])
        assert all(same(a, b) for a, b in zip(alone, together[n], strict=True))
    padded = torch.cat([encoder, torch.zeros(len(encoder), 2, J)], dim=1)
    for n, length in enumerate(LENGTHS):
        padded[n, length:] = float("nan")
    assert search(model, padded, LENGTHS) == together


@pytest.mark.parametrize("name", SEARCHES)
def test_silence_no_frames_and_no_utterances(name):
    search = SEARCHES[name]
    model = make_model(v=4, blank_bias=50.0)
    ((best, *_),) = search(model, make_encoder(1, 4), torch.tensor([4]))
    assert (best.tokens, best.frames) == ((), ())
    assert best.score == pytest.approx(0.0, abs=1e-6)
    assert search(model, make_encoder(1, 4), torch.tensor([0])) == [[Hypothesis((), (), (), 0.0)]]
    assert search(model, make_encoder(0, 4), torch.tensor([], dtype=torch.long)) == []


@pytest.mark.parametrize("context", [1, 2])
@pytest.mark.parametrize("name", SEARCHES)
def test_a_stateless_predictor_is_computed_once_for_each_context(name, context, monkeypatch):
    model = make_model("stateless", context, v=4, blank_bias=0.5)
    computed = []
    output = model.predictor.output

    def count(state):
        computed.extend(map(tuple, state[0].tolist()))
        return output(state)

    arguments = model, make_encoder(8, 20), torch.full((8,), 20)
    monkeypatch.setattr(model.predictor, "output", count)
    cached = SEARCHES[name](*arguments)
    assert len(computed) == len(set(computed)) <= 4**context

    # Without the cache, the same is found.
    monkeypatch.setattr("plateau.decoding.transducer.StatelessPredictor", type(None))
    computed.clear()
    again = SEARCHES[name](*arguments)
    assert len(computed) > 4**context
    for a, b in zip(cached, again, strict=True):
        assert len(a) == len(b)
        assert all(same(x, y) for x, y in zip(a, b, strict=True))


def test_greedy_rna_is_a_beam_of_one():
    # With one hypothesis nothing merges, and its alignment is the likeliest label of each frame.
    model = make_model("lstm", v=4, blank_bias=0.5)
    arguments = model, make_encoder(), LENGTHS
    greedy = greedy_search(*arguments, topology="rna", blank_penalty=0.3)
    beam = modified_beam_search(*arguments, beam=1, blank_penalty=0.3, topology="rna")
    assert all(same(a, b) for a, (b,) in zip(greedy, beam, strict=True))


@pytest.mark.parametrize("context", [1, 2])
def test_fast_beam_search_with_all_labels_finds_every_sequence_with_its_probability(context):
    pytest.importorskip("k2")
    from plateau.graphs.transducer_decoding import trivial_graph

    for seed, penalty in [(0, 0.0), (1, 0.7)]:
        model = make_model("stateless", context, seed=seed, blank_bias=1.0)
        encoder = make_encoder(seed=seed)
        encoder[2, 1:] = float("nan")  # padding: this utterance has one frame
        found = fast_beam_search(
            model,
            encoder,
            LENGTHS,
            trivial_graph(3),
            beam=1e3,
            max_states=100,
            max_contexts=100,
            blank_penalty=penalty,
            nbest=64,
        )
        for frames, length, hypotheses in zip(encoder, LENGTHS, found, strict=True):
            expected = enumerate_sequences(model, frames[:length], "rna", penalty)
            assert {h.tokens for h in hypotheses} == set(expected)
            assert len(hypotheses) == len(expected)
            scores = [h.score for h in hypotheses]
            assert scores == sorted(scores, reverse=True)
            for h in hypotheses:
                total, _, emitting = expected[h.tokens]
                assert h.score == pytest.approx(total, abs=1e-4)
                assert h.frames == emitting
                said = emission_scores(model, frames, h.tokens, h.frames)
                assert h.log_posteriors == pytest.approx(said, abs=1e-5)


def test_fast_beam_search_in_batches_and_with_little_room():
    pytest.importorskip("k2")
    from plateau.graphs.transducer_decoding import trivial_graph

    model = make_model("stateless", 2, v=4, blank_bias=1.0)
    encoder, lengths = make_encoder(4, 30), torch.tensor([30, 12, 1, 25])
    room = {"beam": 8.0, "max_states": 16, "max_contexts": 8, "nbest": 2}
    together = fast_beam_search(model, encoder, lengths, trivial_graph(4), **room)
    exact = modified_beam_search(model, encoder, lengths, beam=200)
    for n, length in enumerate(lengths):
        (alone,) = fast_beam_search(
            model, encoder[n : n + 1, :length], lengths[n : n + 1], trivial_graph(4), **room
        )
        assert len(alone) == 2
        assert all(same(a, b) for a, b in zip(alone, together[n], strict=True))
        # Pruning can only lose probability, and this much is left to it.
        assert exact[n][0].score - 2 < together[n][0].score < exact[n][0].score + 1e-4


def test_fast_beam_search_says_so_where_nothing_is_heard_or_possible():
    k2 = pytest.importorskip("k2")
    from plateau.graphs.transducer_decoding import trivial_graph

    model = make_model("stateless", 1)
    two_labels = k2.Fsa.from_str("0 1 1 0\n1 2 2 0\n2 3 -1 0\n3", acceptor=True)
    found = fast_beam_search(model, make_encoder(2), torch.tensor([1, 5]), two_labels, beam=1e3)
    assert found[0] == [Hypothesis((), (), (), -np.inf)]
    assert found[1][0].tokens == (1, 2)
    assert fast_beam_search(model, make_encoder(0), LENGTHS[:0], trivial_graph(3)) == []
    with pytest.raises(UserError, match="stateless"):
        fast_beam_search(make_model("lstm"), make_encoder(), LENGTHS, trivial_graph(3))


def test_fast_beam_search_with_words_and_a_language_model(tmp_path):
    pytest.importorskip("k2")
    from plateau.graphs.transducer_decoding import lg_graph

    lexicon = {"a": [1], "ab": [1, 2], "bb": [2, 2]}
    log10 = {"a": -0.4, "ab": -0.9, "bb": -0.7, "</s>": -0.3, "<s>": -99}
    arpa = tmp_path / "lm.arpa"
    unigrams = "\n".join(f"{p} {word}" for word, p in log10.items())
    arpa.write_text(f"\\data\\\nngram 1=5\n\n\\1-grams:\n{unigrams}\n\n\\end\\\n")
    sentences = [words for n in range(5) for words in itertools.product(lexicon, repeat=n)]
    weights = {  # no two sentences have the same tokens
        tuple(token for word in words for token in lexicon[word]): np.log(10)
        * sum(log10[word] for word in (*words, "</s>"))
        for words in sentences
    }
    assert len(weights) == len(sentences)

    model = make_model("stateless", 2, blank_bias=1.0)
    encoder, lengths = make_encoder(3, 4), torch.tensor([4, 1, 3])
    room = {"beam": 1e3, "max_states": 200, "max_contexts": 100, "nbest": 100}
    found = fast_beam_search(model, encoder, lengths, lg_graph(lexicon, arpa, 3), **room)
    for frames, length, hypotheses in zip(encoder, lengths, found, strict=True):
        expected = enumerate_sequences(model, frames[:length], "rna")
        assert {h.tokens for h in hypotheses} == set(expected) & set(weights)
        for h in hypotheses:
            total, _, emitting = expected[h.tokens]
            assert h.score == pytest.approx(total + weights[h.tokens], abs=1e-4)
            assert h.frames == emitting
            # The graph's weights are no part of it.
            said = emission_scores(model, frames, h.tokens, h.frames)
            assert h.log_posteriors == pytest.approx(said, abs=1e-5)
