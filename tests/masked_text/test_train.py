import math
import random

import pytest
import torch

pytest.importorskip("k2")

from masked_text.options import LossOptions
from masked_text.train import aligned_places, make_loss, mask, masked_loss, unigram_baseline
from plateau.data.loading import Batch
from plateau.data.masking import MaskingOptions, generator_for
from plateau.data.pieces import draw_pieces
from plateau.data.tokens import LexiconTokenizer
from plateau.graphs.ctc import ctc_loss
from plateau.models.masked_text import piece_lengths
from tests.masked_text.small import small_model

TOKENIZER = LexiconTokenizer(
    ["<blk>", "<unk>", "a", "b", "c"], {"ab": ["a", "b"], "cc": ["c", "c"]}, phones=True
)
TEXTS = ["ab cc", "", "cc"]
TARGETS = [[2, 3, 4, 4], [], [4, 4]]


def make(**options):
    model = small_model(options.pop("max_length", 0))
    masking = options.pop("masking", MaskingOptions())
    return model, make_loss(model, TOKENIZER, LossOptions(**options), masking)


def make_batch():
    features = torch.randn(3, 60, 6, generator=torch.Generator().manual_seed(0))
    return Batch(features, torch.tensor([60, 32, 44]), TEXTS, ["1", "2", "3"], 1.36)


def places_of_transcripts(log_probs, lengths):
    return aligned_places(log_probs, lengths, [[[2, 3], [4, 4]], [], [[4, 4]]])


def test_places_are_those_of_the_transcript():
    """Whatever else is heard: here CTC has missed the first token."""
    labels = torch.tensor([[0, 0, 3, 0, 4, 0, 4, 0]])
    log_probs = (0.6 * torch.nn.functional.one_hot(labels, 5) + 0.08).log()
    found = aligned_places(log_probs, torch.tensor([8]), [[[2, 3], [4, 4]]])
    assert found[0, 2:].tolist() == [1, 1, 2, 2, 3, 3]
    assert found[0, 0] in (-1, 0) and found[0, 1] == 0
    too_short = aligned_places(log_probs[:, 4:6], torch.tensor([2]), [[[2, 3], [4, 4]]])
    assert too_short.tolist() == [[0, 0]]  # as heard


def test_masked_tokens_count_alone():
    found = torch.randn(1, 3, 5).log_softmax(2)
    targets, masked = torch.tensor([[2, 3, 4]]), torch.tensor([[True, False, True]])
    losses = masked_loss(found, targets, masked)
    assert losses.tolist() == [[-float(found[0, 0, 2]), 0.0, -float(found[0, 2, 4])]]


def test_loss_of_known_outputs():
    targets, masked = torch.tensor([[2, 3, 4]]), torch.ones(1, 3, dtype=torch.bool)
    perfect = torch.nn.functional.one_hot(targets, 5).float().log().clamp(min=-1e9)
    assert masked_loss(perfect, targets, masked).sum() == 0
    uniform = torch.zeros(1, 3, 5).log_softmax(2)
    torch.testing.assert_close(masked_loss(uniform, targets, masked), torch.full((1, 3), 5.0).log())


def test_the_baseline_is_what_a_decoder_of_frequencies_has():
    texts = ["ab cc", "ab"]  # a a b b c c
    baseline = unigram_baseline(TOKENIZER, texts)
    assert baseline.value == pytest.approx(math.log(3))
    assert baseline.holds(1.095) and not baseline.holds(0.9) and not baseline.holds(0.0)


def test_label_smoothing_is_torchs_own():
    scores, targets = torch.randn(2, 3, 5), torch.tensor([[2, 3, 4], [1, 1, 2]])
    expected = torch.nn.functional.cross_entropy(
        scores.transpose(1, 2), targets, reduction="none", label_smoothing=0.2
    )
    masked = torch.ones(2, 3, dtype=torch.bool)
    torch.testing.assert_close(masked_loss(scores.log_softmax(2), targets, masked, 0.2), expected)


def test_the_loss_is_ctc_and_cross_entropy_of_all_that_is_masked():
    model, loss_function = make(ctc_scale=0.25, masking=MaskingOptions(full=1))
    batch = make_batch()
    loss = loss_function(model.eval(), batch)
    tokens = torch.tensor([[5, 5, 5, 5], [0, 0, 0, 0], [5, 5, 0, 0]])
    number, no = torch.tensor([4, 0, 2]), torch.zeros(3, dtype=torch.bool)
    log_probs, lengths, found, _ = model(
        batch.features, batch.lengths, tokens, number, no, no, places_of_transcripts
    )
    of_masks = -sum(
        found[n, u, token] for n, target in enumerate(TARGETS) for u, token in enumerate(target)
    )
    expected = 0.25 * ctc_loss(log_probs, lengths, TARGETS).sum() + 0.75 * of_masks
    torch.testing.assert_close(loss.total, expected)
    assert (loss.tokens, loss.frames) == (6, 6)
    assert loss.counts["masked_loss"] == pytest.approx(float(of_masks))


def test_lengths_of_masks_are_learnt_beside():
    masking = MaskingOptions("fixed", share=1, full=0, unit="token")
    alone, with_lengths = (
        make(masking=masking, max_length=max_length, ctc_scale=0.0) for max_length in (0, 3)
    )
    with_lengths[0].load_state_dict(alone[0].state_dict(), strict=False)
    batch = make_batch()
    losses = [loss_function(model.eval(), batch) for model, loss_function in (alone, with_lengths)]
    generators = [generator_for(id) for id in batch.ids]
    transcripts = [[[2, 3], [4, 4]], [], [[4, 4]]]
    given = mask(transcripts, 5, masking, 0, generators, training=False)
    pieces = [
        draw_pieces(row[:u], 5, 3, generator)
        for row, u, generator in zip(given.tokens.tolist(), (4, 0, 2), generators, strict=True)
    ]
    model = with_lengths[0]
    encoder_out, frames = model.ctc.encode(batch.features, batch.lengths)
    places = places_of_transcripts(model.ctc.scores(encoder_out), frames)
    found = piece_lengths(model.decoder, pieces, model.hear(encoder_out, frames, places))
    masks = [
        (n, u, piece.size)
        for n, row in enumerate(pieces)
        for u, piece in enumerate(row)
        if piece.token == 5
    ]
    assert len({size for _, _, size in masks}) > 1
    of_lengths = -sum(found[n, u, size] for n, u, size in masks)
    torch.testing.assert_close(losses[1].total, losses[0].total + of_lengths)
    wrong = sum(int(found[n, u].argmax()) != size for n, u, size in masks)
    assert losses[1].counts == {**losses[0].counts, "wrong_lengths": wrong}


def test_an_utterance_counts_the_same_whatever_is_masked():
    """Of equal cross entropies, as a decoder has that hears and knows nothing."""
    totals = set()
    for share in (0.25, 0.5, 1.0):
        masking = MaskingOptions("fixed", share=share, full=0, unit="token")
        model, loss_function = make(ctc_scale=0.0, masking=masking)
        for parameter in model.decoder.output.parameters():
            torch.nn.init.zeros_(parameter)
        loss = loss_function(model.eval(), make_batch())
        totals.add(round(loss.total.item(), 4))
        assert loss.counts["masked_loss"] == pytest.approx(loss.frames * torch.tensor(5.0).log())
    assert totals == {round(6 * float(torch.tensor(5.0).log()), 4)}


def test_evaluation_masks_the_same_each_time_and_training_does_not():
    model, loss_function = make()
    batch = make_batch()
    model.eval()
    assert loss_function(model, batch).total == loss_function(model, batch).total
    assert int(model.ctc.steps) == 0
    model.train()
    random.seed(0)
    totals = {loss_function(model, batch).total.item() for _ in range(5)}
    assert len(totals) > 1 and int(model.ctc.steps) == 5
    random.seed(0)
    assert loss_function(model, batch).total.item() in totals


def test_ctc_alone_comes_first():
    model, loss_function = make(after_steps=1)
    batch = make_batch()
    loss = loss_function(model.train(), batch)
    log_probs, lengths = model.ctc(batch.features, batch.lengths)
    torch.testing.assert_close(loss.total, ctc_loss(log_probs, lengths, TARGETS).sum())
    loss.total.backward()
    gradients = [p.grad for p in model.parameters()]
    assert all(g is not None for g in gradients)  # DistributedDataParallel waits for them
    assert not any(p.grad.any() for p in model.decoder.parameters())
    loss_function(model, batch).total.backward()
    assert any(p.grad.any() for p in model.decoder.parameters())


@pytest.mark.parametrize("joint", [False, True])
def test_masked_tokens_teach_the_encoder_where_that_is_asked_for(joint):
    model, loss_function = make(joint=joint, ctc_scale=0.0)
    loss_function(model.train(), make_batch()).total.backward()
    assert joint == any(p.grad is not None and p.grad.any() for p in model.encoder.parameters())
    assert any(p.grad.any() for p in model.memory.parameters())


def test_what_is_silent_and_guessed_while_training():
    words = [[[2, 3], [4, 4]]] * 400
    options = MaskingOptions(silent=0.25, guessed=0.5)
    draws = {"silent": 0.25, "guessed": 0.5}
    drawn = mask(words, 5, options, 0, [random.Random(n) for n in range(400)], training=True)
    for name, share in draws.items():
        assert abs(getattr(drawn, name).float().mean() - share) < 0.08
    drawn = mask(words, 5, options, 0, [random.Random(n) for n in range(400)], training=False)
    assert not drawn.silent.any() and not drawn.guessed.any()
    same = drawn.tokens == drawn.targets
    assert (same | (drawn.tokens == 5)).all() and not same.all(1).any()
