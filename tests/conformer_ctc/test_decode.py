"""Methods of decoding that cannot find what a loss trains."""

import pytest

pytest.importorskip("k2")

from conformer_ctc.decode import check_methods
from plateau.config import UserError
from plateau.data.tokens import LexiconTokenizer

TOKENIZER = LexiconTokenizer(
    ["<blk>", "<unk>", "a", "b", "c"], {"ab": ["a", "b"], "cc": ["c", "c"]}, phones=True
)


@pytest.mark.parametrize(
    ("topology", "text", "confused"),
    [
        ("ctc", "cc cc", False),
        ("ctc_without_inner_blank", "cc cc", False),
        ("silence", "ab ab", False),
        ("silence", "ab cc", True),
        ("forced_silence", "cc", True),
        ("hmm", "cc", True),
        ("hmm", "ab ab", False),
    ],
)
def test_methods_that_would_lose_a_token_are_refused(topology, text, confused):
    check_methods(["lexicon"], topology, TOKENIZER, [text])
    texts = ["", "ab", text]
    if not confused:
        check_methods(["greedy", "lexicon"], topology, TOKENIZER, texts)
        return
    with pytest.raises(UserError, match=f"greedy would .* as in '{text}'.*{topology}"):
        check_methods(["greedy", "lexicon"], topology, TOKENIZER, texts)


def test_silence_between_words_is_needed_to_part_equal_tokens():
    tokenizer = LexiconTokenizer(["<blk>", "<unk>", "a"], {"a": ["a"]}, phones=True)
    check_methods(["greedy"], "forced_silence", tokenizer, ["a a"])
    with pytest.raises(UserError):
        check_methods(["greedy"], "silence", tokenizer, ["a a"])
