import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plateau.data.windows import PADDING
from plateau.models.window_loss import FLOOR, WindowLoss, WindowLossOptions, within

COUNTS = torch.tensor([0.0, 3.0, 5.0, 99.0])
PRIOR = [1 / 111, 4 / 111, 6 / 111, 100 / 111]
WORDS = torch.tensor([[1, 3, PADDING], [2, PADDING, PADDING]])
WANTED = torch.tensor([[True, True, False], [True, False, False]])


def logits(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(*shape, 4)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("adjustment", [0.0, 1.5])
def test_cross_entropy_word_by_word(power, adjustment):
    loss = WindowLoss(COUNTS, WindowLossOptions(power, adjustment))
    scores = logits(2, 3)
    mean = sum(p * p**-power for p in PRIOR)
    expected = 0.0
    for n, w in ((0, 0), (0, 1), (1, 0)):
        word = int(WORDS[n, w])
        adjusted = [
            s + adjustment * math.log(p) for s, p in zip(scores[n, w].tolist(), PRIOR, strict=True)
        ]
        total = sum(map(math.exp, adjusted))
        expected -= PRIOR[word] ** -power / mean * math.log(math.exp(adjusted[word]) / total)
    assert loss.words(scores, WORDS, WANTED).item() == pytest.approx(expected, rel=1e-5)


def test_padding_counts_as_much_as_is_said():
    all_wanted = torch.ones_like(WANTED)
    scores = logits(2, 3)
    values = {}
    for weight in (0.0, 1.0, 0.25):
        loss = WindowLoss(COUNTS, WindowLossOptions(padding_weight=weight))
        values[weight] = loss.words(scores, WORDS, all_wanted).item()
    words = WindowLoss(COUNTS, WindowLossOptions()).words(scores, WORDS, WANTED).item()
    padding = F.cross_entropy(scores[~WANTED], WORDS[~WANTED], reduction="sum").item()
    assert values == pytest.approx({0: words, 1: words + padding, 0.25: words + 0.25 * padding})


def test_a_perfect_model_has_no_loss():
    """The seed's had the same loss as one that knows nothing: softmax came twice."""
    perfect = 50.0 * F.one_hot(WORDS, 4).float()
    loss = WindowLoss(COUNTS, WindowLossOptions())
    assert loss.words(perfect, WORDS, WANTED).item() < 1e-6
    assert loss.words(perfect.softmax(2), WORDS, WANTED).item() > 0.7 * 3


def test_with_logits_adjusted_a_model_need_not_know_what_is_common():
    """Of words drawn as they are in training, equal scores are the optimum: no gradient."""
    words = torch.tensor([[0] + [1] * 4 + [2] * 6 + [3] * 100])  # just PRIOR
    for adjustment, optimum in ((0.0, torch.tensor(PRIOR).log()), (1.0, torch.zeros(4))):
        scores = optimum.expand(1, 111, 4).clone().requires_grad_()
        loss = WindowLoss(COUNTS, WindowLossOptions(logit_adjustment=adjustment))
        loss.words(scores, words, torch.ones_like(words).bool()).backward()
        assert scores.grad.sum((0, 1)).abs().max() < 1e-4
        other = torch.arange(4.0).expand(1, 111, 4).clone().requires_grad_()
        loss.words(other, words, torch.ones_like(words).bool()).backward()
        assert other.grad.sum((0, 1)).abs().max() > 1


SPANS = torch.tensor([[[0.0, 1.6], [1.6, 3.4], [0.0, 0.0]], [[0.5, 2.0], [0.0, 0.0], [0.0, 0.0]]])


def test_which_steps_are_a_words():
    """Those with their middle in it."""
    inside = within(SPANS, 4).long().tolist()
    assert inside[0] == [[1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    assert inside[1] == [[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_attention_that_is_elsewhere_costs():
    loss = WindowLoss(COUNTS, WindowLossOptions())
    attention = torch.tensor(
        [[[0.5, 0.25, 0.25, 0.0], [0, 0, 0.5, 0.5], [1, 0, 0, 0]], [[0, 0, 0, 1.0]] * 3]
    )
    expected = -math.log(0.75) - math.log(0.5) - math.log(FLOOR)
    assert loss.attention(attention, SPANS, WANTED).item() == pytest.approx(expected)


def test_frames_are_those_of_their_word_or_of_nothing():
    loss = WindowLoss(COUNTS, WindowLossOptions())
    scores = logits(2, 4)
    steps = torch.tensor([[True] * 4, [True, True, True, False]])
    # The last words end at 3.4 and 2.0.
    labels = [[1, 1, 3, 0], [2, 2, None, None]]
    values = [
        -math.log(float(scores[n, t].softmax(0)[label]))
        for n, row in enumerate(labels)
        for t, label in enumerate(row)
        if label is not None
    ]
    found = loss.frames(scores, WORDS, SPANS, steps).item()
    assert found == pytest.approx(sum(values) / 6, rel=1e-5)


# What the seed did: squared errors, binary cross entropy, and softmax twice.
VOCAB = 300


def squared(scores: Tensor, words: Tensor) -> Tensor:
    errors = F.mse_loss(scores.softmax(1), F.one_hot(words, VOCAB).float(), reduction="sum")
    return errors / len(words)


def binary(scores: Tensor, words: Tensor) -> Tensor:
    """The mean over words of the vocabulary, too, as torch takes it."""
    return F.binary_cross_entropy(scores.softmax(1), F.one_hot(words, VOCAB).float())


def twice(scores: Tensor, words: Tensor) -> Tensor:
    return F.cross_entropy(scores.softmax(1), words)


def once(scores: Tensor, words: Tensor) -> Tensor:
    wanted = torch.ones_like(words).bool()
    loss = WindowLoss(torch.ones(VOCAB), WindowLossOptions())
    return loss.words(scores, words, wanted) / len(words)


def test_squared_errors_have_no_gradient_where_a_model_is_sure_and_wrong():
    words = torch.tensor([5])
    sizes = {}
    for function in (squared, once):
        scores = torch.zeros(1, VOCAB)
        scores[0, 7] = 15.0
        scores.requires_grad_()
        function(scores, words).backward()
        sizes[function] = float(scores.grad.norm())
    assert sizes[once] == pytest.approx(math.sqrt(2), rel=1e-2)
    assert sizes[squared] < 1e-3


@pytest.mark.parametrize("function", [squared, binary, twice, once])
def test_with_other_losses_only_a_few_common_words_are_said(function):
    """Each word sounds like itself alone, and the k-th is as common as 1/k (Zipf)."""
    torch.manual_seed(0)
    heard = F.normalize(torch.randn(VOCAB, 64), dim=1)
    zipf = 1 / torch.arange(1.0, VOCAB + 1)
    model = torch.nn.Linear(64, VOCAB)
    optimizer = torch.optim.SGD(model.parameters(), lr=2.0, momentum=0.9)
    for _ in range(400):
        words = torch.multinomial(zipf, 128, replacement=True)
        optimizer.zero_grad()
        function(model(heard[words]), words).backward()
        optimizer.step()
    words = torch.multinomial(zipf, 4000, replacement=True)
    said = model(heard[words]).argmax(1)
    right, different = float((said == words).float().mean()), said.unique().numel()
    if function is once:
        assert right > 0.99 and different > 250
    else:
        assert right < 0.6 and different < 20
