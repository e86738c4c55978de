"""A small model learns to repeat tokens; planted mistakes are told, and the part is named."""

import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from plateau.checks.identity import STEPS, check_identity, coded_batch, make_codes
from plateau.config import UserError
from plateau.data.tokens import LexiconTokenizer
from plateau.training.interfaces import Loss

TOKENS = ["<blk>", "<unk>", "A", "B", "C", "D"]
LEXICON = {"ab": ["A", "B"], "cab": ["C", "A", "B"], "d": ["D"], "dd": ["D", "D"]}
TOKENIZER = LexiconTokenizer(TOKENS, LEXICON, phones=True)
FEATURES = 8


class Small(nn.Module):
    """Three layers of single frames, the first two of which may be cut off."""

    def __init__(self, cut: str = "") -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, 16)
        self.blocks = nn.ModuleList(nn.Linear(16, 16) for _ in range(2))
        self.output = nn.Linear(16, len(TOKENS))
        self.unused = nn.Linear(2, 2)
        self.cut = cut

    def forward(self, features, lengths):
        x = self.first(features).relu()
        x = x.detach() if self.cut == "first" else x
        for i, block in enumerate(self.blocks):
            x = x + block(x).relu()
            x = x.detach() if self.cut == f"blocks.{i}" else x
        return self.output(x).log_softmax(2)


def ctc(model, batch, change=lambda log_probs: log_probs):
    log_probs = change(model(batch.features, batch.lengths))
    targets = [TOKENIZER.encode(text) for text in batch.texts]
    numbers = torch.tensor([len(target) for target in targets])
    flat = torch.tensor([token for target in targets for token in target])
    total = F.ctc_loss(log_probs.transpose(0, 1), flat, batch.lengths, numbers, reduction="sum")
    return Loss(total, int(numbers.sum()), {}, int(batch.lengths.sum()))


def greedy(log_probs):
    """Token sequences of (N, T, V)."""
    paths = log_probs.argmax(2).tolist()
    return [[label for label, _ in itertools.groupby(path) if label] for path in paths]


def run(cut="", loss_function=ctc, blind=False, idle=("unused.",), **keywords):
    torch.manual_seed(0)
    model = Small(cut)
    generator = torch.Generator().manual_seed(1)
    codes = make_codes(len(TOKENS), FEATURES, generator)

    def batch():
        return coded_batch(list(LEXICON), TOKENIZER, codes, 1, generator)

    @torch.no_grad()
    def wrong():
        """Share of the texts that are not said."""
        said = batch()
        features = torch.zeros_like(said.features) if blind else said.features
        found = greedy(model(features, said.lengths))
        texts = [TOKENIZER.encode(text) for text in said.texts]
        return sum(a != b for a, b in zip(texts, found, strict=True)) / len(texts)

    what = "of the texts wrong"
    return check_identity(model, loss_function, batch, wrong, what, idle, **keywords)


def test_it_is_learnt():
    assert run() < STEPS


def test_it_is_not_learnt_before_all_of_the_loss_counts():
    assert run(all_from=400) > 400


@pytest.mark.parametrize(
    ("cut", "parts", "number"),
    [
        ("first", "first", 2),
        ("blocks.0", "first, blocks.0", 4),
        ("blocks.1", "first, blocks.0, blocks.1", 6),
    ],
)
def test_a_cut_gradient_is_named(cut, parts, number):
    """Also where random layers let enough through to learn all the same."""
    message = f"{number} parameters had no gradient, or only zeros, in any step: of {parts}; look"
    with pytest.raises(UserError, match=message) as error:
        run(cut)
    assert re.search(r"\nafter \d+ steps \d+\.\d% is of the texts wrong$", str(error.value))


def test_what_the_loss_does_not_use_is_named_unless_that_is_meant():
    with pytest.raises(UserError, match=r"2 parameters had no gradient, .* of unused; look"):
        run(idle=())


@pytest.mark.parametrize(
    "mistake",
    [
        {"loss_function": lambda model, batch: ctc(model, batch, lambda x: x.log_softmax(1))},
        {"loss_function": lambda model, batch: ctc(model, batch, lambda x: x.flip(1))},
        {"blind": True},
    ],
    ids=["axis", "reversed", "other input at decoding"],
)
def test_what_does_not_learn_is_told(mistake):
    with pytest.raises(UserError, match=r"after 200 steps .*% is of the texts wrong, ") as error:
        run(**mistake, steps=200)
    assert "whether decoding gives the model what training does; all parts have" in str(error.value)
    assert str(error.value).count("\n") == 1


def test_codes_and_batches():
    generator = torch.Generator().manual_seed(0)
    few = make_codes(6, 8, generator)
    torch.testing.assert_close(few @ few.T, 8 * torch.eye(6))
    many = make_codes(30, 8, generator)
    assert many.shape == (30, 8) and set(many.flatten().tolist()) == {-1.0, 1.0}
    batch = coded_batch(["cab"], TOKENIZER, few, 2, generator, size=5)
    assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
    for features, length, text in zip(batch.features, batch.lengths, batch.texts, strict=True):
        tokens = TOKENIZER.encode(text)
        assert length == 2 * (3 * len(tokens) + 1)
        expected = [0, 0, *(t for token in tokens for t in (*[token] * 4, 0, 0))]
        for frame, token in zip(features[:length], expected, strict=True):
            assert torch.equal(frame, few[token] if token else torch.zeros(8))
        assert not features[length:].any()
