"""What the recipe makes of its loss options: the graph loss, the prior, and how it warms up."""

import copy
from typing import get_args, get_type_hints

import pytest
import torch

pytest.importorskip("k2")

from conformer_ctc.options import LossOptions
from conformer_ctc.train import make_loss
from plateau.config import UserError
from plateau.data.loading import Batch
from plateau.data.tokens import LexiconTokenizer, encode_words
from plateau.graphs.dense import soft_alignment
from plateau.graphs.loss import graph_loss
from plateau.graphs.topology import TOPOLOGIES
from plateau.models.blstm import BlstmOptions
from plateau.models.ctc import CtcModel
from plateau.models.encoder import EncoderOptions
from plateau.models.prior import PriorOptions

TOKENIZER = LexiconTokenizer(
    ["<blk>", "<unk>", "a", "b", "c"], {"ab": ["a", "b"], "cc": ["c", "c"]}, phones=True
)
TEXTS = ["ab cc", "", "cc"]


def make_model(prior=None):
    torch.manual_seed(0)
    blstm = BlstmOptions(dim=8, num_layers=1, dropout=0.0, subsampling_channels=2)
    return CtcModel(6, 5, EncoderOptions("blstm", blstm=blstm), prior)


def make_batch(seed=0):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(3, 60, 6, generator=generator)
    return Batch(features, torch.tensor([60, 32, 44]), TEXTS, ["1", "2", "3"], 1.36)


def gradient_of(loss, model):
    return torch.autograd.grad(loss, list(model.parameters()))


def assert_same(loss, expected, model):
    torch.testing.assert_close(loss, expected)
    for found, wanted in zip(gradient_of(loss, model), gradient_of(expected, model), strict=True):
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_the_loss_is_that_of_its_options(topology):
    model, batch = make_model(), make_batch()
    asked = {"viterbi": 0.3, "acoustic_scale": 0.7, "delay_penalty": 0.1}
    loss = make_loss(model, TOKENIZER, LossOptions(topology, **asked))(model, batch)
    log_probs, lengths = model(batch.features, batch.lengths)
    transcripts = [[[2, 3], [4, 4]], [], [[4, 4]]]
    expected = graph_loss(log_probs, lengths, transcripts, topology, **asked)
    assert_same(loss.total, expected.sum(), model)
    assert (loss.tokens, loss.frames) == (6, int(lengths.sum()))


@pytest.mark.parametrize("source", ["posteriors", "soft_alignments"])
@pytest.mark.parametrize("topology", ["ctc", "silence"])
def test_the_prior_is_estimated_and_divided_by(source, topology):
    prior = PriorOptions("moving_average", source, scale=0.4, decay=0.6)
    model = make_model(prior)
    loss_function = make_loss(model, TOKENIZER, LossOptions(topology, prior=prior))
    transcripts = [encode_words(TOKENIZER, text) for text in TEXTS]
    average = torch.full((5,), 0.2, dtype=torch.float64)
    for step in range(3):
        batch = make_batch(step)
        log_probs, lengths = model(batch.features, batch.lengths)
        log_prior = average.log()

        def loss(scores, lengths, transcripts, log_prior=log_prior):
            scores = scores - 0.4 * log_prior.float()
            return graph_loss(scores, lengths, transcripts, topology)

        if source == "posteriors":
            shares = log_probs.detach().exp()
        else:
            _, shares = soft_alignment(log_probs, lengths, transcripts, loss)
        shares = torch.cat([row[:n] for row, n in zip(shares, lengths.tolist(), strict=True)])
        average = shares.double().mean(0) if step == 0 else 0.6 * average + 0.4 * shares.mean(0)
        expected = loss(log_probs, lengths, transcripts, average.log()).sum()
        assert_same(loss_function(model, batch).total, expected, model)
    state = copy.deepcopy(model.state_dict())
    model.eval()  # on the development set it is used, and stays as it is
    torch.testing.assert_close(loss_function(model, batch).total, expected)
    assert all(model.state_dict()[name].equal(value) for name, value in state.items())
    assert {"prior.prior", "prior.sums", "prior.steps"} < state.keys()


@pytest.mark.parametrize(
    ("after", "warm_up", "expected"),
    [
        (0, 0, [1, 1, 1, 1, 1]),
        (2, 0, [0, 0, 1, 1, 1]),
        (0, 4, [0.25, 0.5, 0.75, 1, 1]),
        (1, 2, [0, 0.5, 1, 1, 1]),
    ],
)
def test_plain_ctc_comes_first_and_the_rest_warms_up(after, warm_up, expected):
    prior = PriorOptions("batch", scale=0.5)
    loss = {"viterbi": 0.4, "acoustic_scale": 0.6, "delay_penalty": 0.2}
    schedule = {"after_steps": after, "warm_up_steps": warm_up}
    options = LossOptions("silence", prior=prior, **loss, **schedule)
    model, batch = make_model(prior), make_batch()
    loss_function = make_loss(model, TOKENIZER, options)
    model.eval()
    loss_function(model, batch)  # does not count
    model.train()
    for share in expected:
        log_probs, lengths = model(batch.features, batch.lengths)
        found = loss_function(model, batch).total
        wanted = graph_loss(
            log_probs,
            lengths,
            [encode_words(TOKENIZER, text) for text in TEXTS],
            "silence" if share else "ctc",
            0.4 * share,
            0.2 * share,
            1 - 0.4 * share,
            model.prior.log_prior,
            0.5 * share,
        )
        torch.testing.assert_close(found, wanted.sum())
    assert "steps" in model.state_dict()  # a resumed run goes on from there


def test_without_a_prior_a_checkpoint_has_none():
    assert make_model(PriorOptions()).state_dict().keys() == make_model().state_dict().keys()
    assert not any(name.startswith("prior") for name in make_model().state_dict())


def test_topologies_have_the_names_of_the_graphs():
    assert get_args(get_type_hints(LossOptions)["topology"]) == tuple(TOPOLOGIES)


@pytest.mark.parametrize(
    "values",
    [
        {"viterbi": 1.1},
        {"viterbi": -0.1},
        {"acoustic_scale": 0.0},
        {"delay_penalty": -1},
        {"after_steps": -1},
        {"warm_up_steps": -1},
    ],
)
def test_options_that_cannot_be(values):
    ((name, _),) = values.items()
    with pytest.raises(UserError, match=f"loss.{name} is"):
        LossOptions(**values)
