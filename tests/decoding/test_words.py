import math

import pytest

from plateau.data.tokens import LexiconTokenizer
from plateau.decoding.words import unigram


def test_words_have_their_scaled_log_probability():
    tokenizer = LexiconTokenizer(
        ["<blk>", "<unk>", "a", "b"], {"ab": ["a", "b"], "b": ["b"]}, phones=True
    )
    found = unigram(["ab b", "", "b  b"], tokenizer, 0.5)
    assert found == {
        (2, 3): pytest.approx(0.5 * math.log(1 / 4)),
        (3,): pytest.approx(0.5 * math.log(3 / 4)),
    }
