import pytest
import torch

pytest.importorskip("k2")

from masked_text.watch import hearing, make_watch, notes
from plateau.data.loading import Batch
from plateau.data.tokens import LexiconTokenizer
from tests.masked_text.small import small_model


def make():
    model = small_model()
    features, lengths = torch.randn(3, 40, 6), torch.tensor([40, 32, 28])
    return model, Batch(features, lengths, ["a"] * 3, ["1", "2", "3"], 1.0)


TARGETS = [[2, 3, 2], [4, 4], [1, 2, 3]]
PLACES = torch.arange(10.0).expand(3, 10) / 4  # of ten frames, about as spoken


def train(model, batch):
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    tokens = torch.full((3, 3), model.decoder.mask_id)
    number, no = torch.tensor([3, 2, 3]), torch.zeros(3, dtype=torch.bool)
    wanted = torch.tensor([[2, 3, 2], [4, 4, 0], [1, 2, 3]])
    for _ in range(300):
        _, _, found, _ = model(
            batch.features, batch.lengths, tokens, number, no, no, lambda *_: PLACES
        )
        losses = torch.nn.functional.nll_loss(found.transpose(1, 2), wanted, reduction="none")
        optimizer.zero_grad()
        losses[wanted > 0].mean().backward()
        optimizer.step()


def test_a_decoder_that_listens_needs_its_audio():
    model, batch = make()
    train(model, batch)
    losses = hearing(model.eval(), batch, TARGETS, PLACES)
    assert losses["heard"] < 0.1
    assert losses["silent"] > losses["heard"] + 1
    assert losses["swapped"] > losses["heard"] + 1
    assert notes(losses, 10**6) == []


def test_a_decoder_that_is_deaf_is_told():
    model, batch = make()
    for layer in model.decoder.layers:  # the mistake: attention to the audio goes nowhere
        layer.multihead_attn.register_forward_hook(lambda m, i, out: (0 * out[0], out[1]))
    train(model, batch)
    losses = hearing(model.eval(), batch, TARGETS, PLACES)
    assert losses["silent"] == losses["heard"] == losses["swapped"]
    (note,) = notes(losses, 10**6)
    assert "the decoder does not listen" in note
    assert "with the audio silent and" in note and "with the audio swapped" in note
    assert notes(losses, 10) == []  # it may yet learn to


@pytest.mark.parametrize(("after_steps", "number"), [(0, 1), (1500, 0)])
def test_steps_of_ctc_alone_teach_no_listening(after_steps, number):
    model, batch = make()
    model.ctc.steps.fill_(2000)
    for parameter in model.decoder.output.parameters():
        torch.nn.init.zeros_(parameter)
    tokenizer = LexiconTokenizer(["<blk>", "<unk>", "a", "b", "c"], {"a": ["a"]}, phones=True)
    watch = make_watch(model.eval(), tokenizer, lambda *_: PLACES, after_steps)
    with torch.no_grad():
        assert len(watch(batch).notes) == number


def test_one_utterance_has_none_to_swap_with():
    model, batch = make()
    one = Batch(batch.features[:1], batch.lengths[:1], ["a"], ["1"], 1.0)
    assert hearing(model.eval(), one, TARGETS[:1], PLACES[:1]).keys() == {"heard", "silent"}
