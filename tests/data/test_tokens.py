from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.tokens import (
    TokenOptions,
    encode_words,
    make_lang,
    min_frames,
    read_lang,
    read_lexicon,
)

TEXTS = ["YES NO NO YES", "NO MAYBE", "é mwána YES"] * 3


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
def test_text_survives_tokens(kind: str, tmp_path: Path):
    options = TokenOptions(kind, vocab_size=25)
    tokenizer = make_lang(tmp_path / options.lang, TEXTS, options)
    for text in TEXTS:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == text
        assert 0 not in ids  # blank
    lines = (tmp_path / options.lang / "tokens.txt").read_text(encoding="utf-8").splitlines()
    assert [line.split()[1] for line in lines] == [str(i) for i in range(len(lines))]
    assert lines[0] == "<blk> 0"
    assert [line.split()[0] for line in lines] == tokenizer.tokens
    assert read_lang(tmp_path / options.lang).encode(TEXTS[0]) == tokenizer.encode(TEXTS[0])


@settings(deadline=None, derandomize=True, max_examples=50)
@given(st.lists(st.text(alphabet="YESNOMABéw ", min_size=1, max_size=12), max_size=4))
def test_any_text_of_known_characters_survives(tmp_path_factory: pytest.TempPathFactory, words):
    folder = tmp_path_factory.getbasetemp() / "lang_bpe_25"
    if not folder.exists():
        make_lang(folder, TEXTS, TokenOptions(vocab_size=25))
    tokenizer = read_lang(folder)
    text = tokenizer.reference(" ".join(words))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_bpe_has_the_size_asked_for_or_what_the_text_has(tmp_path: Path):
    small = make_lang(tmp_path / "a", TEXTS, TokenOptions(vocab_size=25))
    assert len(small.tokens) == 25
    large = make_lang(tmp_path / "b", TEXTS, TokenOptions(vocab_size=500))
    assert 25 < len(large.tokens) < 500


def test_unknown_words_are_visible(tmp_path: Path):
    tokenizer = make_lang(tmp_path / "lang_word", TEXTS, TokenOptions("word"))
    assert tokenizer.decode(tokenizer.encode("YES PERHAPS")) == "YES <unk>"
    assert tokenizer.reference("YES PERHAPS") == "YES PERHAPS"


def test_phones_are_scored_against_pronunciations(tmp_path: Path):
    lexicon = tmp_path / "words.txt"
    lexicon.write_text("YES y e s\nNO n ow\nNO n o\n")
    options = TokenOptions("phone", lexicon=str(lexicon))
    tokenizer = make_lang(tmp_path / options.lang, TEXTS, options)
    assert tokenizer.reference("NO YES") == "n ow y e s"
    assert tokenizer.decode(tokenizer.encode("NO YES")) == "n ow y e s"


def test_a_lexicon_line_without_phones_is_named(tmp_path: Path):
    path = tmp_path / "lexicon.txt"
    path.write_text("YES y e s\n\nNO\n")
    with pytest.raises(UserError, match=r"lexicon\.txt:3: 'NO' has no tokens"):
        read_lexicon(path)
    with pytest.raises(UserError, match="no text"):
        make_lang(tmp_path / "lang", ["", " "], TokenOptions())


@pytest.mark.parametrize("options", [TokenOptions("char"), TokenOptions("bpe", 30)])
def test_the_tokens_of_words_are_those_of_the_text(tmp_path: Path, options: TokenOptions):
    texts = ["two tattoos too", "to tattoo", "", "  a to  toot x"]
    tokenizer = make_lang(tmp_path / "lang", texts[:2], options)
    for text in texts:
        words = encode_words(tokenizer, text)
        assert len(words) == len(text.split())
        assert [token for word in words for token in word] == tokenizer.encode(text)


def test_min_frames_is_the_shortest_path_that_collapses_to_the_tokens():
    def collapses(path: tuple[int, ...], tokens: tuple[int, ...]) -> bool:
        kept = [a for i, a in enumerate(path) if i == 0 or path[i - 1] != a]
        return tuple(a for a in kept if a != 0) == tokens

    for length in range(4):
        for tokens in product([1, 2], repeat=length):
            shortest = next(
                frames
                for frames in range(2 * length + 1)
                if any(collapses(path, tokens) for path in product([0, 1, 2], repeat=frames))
            )
            assert min_frames(tokens) == shortest
