import re
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


def test_an_empty_text_is_named(tmp_path: Path):
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


NASTY = [
    "#",
    "##0",
    "<",
    ">",
    "<s",
    "s>",
    "!SIL",
    "<UNK>",
    "😀",
    "👩‍👧",
    "a\u0301\u0323",
    "%",
    "_",
    "sil",
    "0",
]


def tokens_of(folder: Path) -> list[str]:
    """Checked to be unique and numbered from 0."""
    rows = [line.split(" ") for line in (folder / "tokens.txt").read_text("utf-8").splitlines()]
    assert [int(number) for _, number in rows] == list(range(len(rows)))
    names = [name for name, _ in rows]
    assert len(set(names)) == len(names)
    return names


@pytest.mark.parametrize("kind", ["bpe", "char", "word", "phone"])
def test_tokens_are_unique_whatever_the_words(tmp_path: Path, kind: str):
    lexicon = tmp_path / "lexicon"
    lexicon.write_text("".join(f"{word} p {word[0]}x\n" for word in NASTY), encoding="utf-8")
    options = TokenOptions(kind, 60, str(lexicon) if kind == "phone" else None)
    folder = tmp_path / options.lang
    tokenizer = make_lang(folder, [" ".join(NASTY), *NASTY], options)
    names = tokens_of(folder)
    assert names == tokenizer.tokens and names[0] == "<blk>" and "<unk>" in names
    for word in NASTY:
        ids = tokenizer.encode(word)
        assert ids and not {0, names.index("<unk>")} & set(ids)
        if kind != "phone":
            assert tokenizer.decode(ids) == tokenizer.reference(word)


@settings(deadline=None, derandomize=True, max_examples=40)
@given(
    st.lists(st.text("ab<>unk#0▁▅sil é", min_size=1, max_size=8), min_size=1, max_size=6),
    st.sampled_from(["char", "word"]),
)
def test_any_text_has_its_tokens_or_an_error(tmp_path_factory, texts, kind):
    folder = tmp_path_factory.mktemp("lang") / f"lang_{kind}"
    words = {word for text in texts for word in text.split()}
    names = {"<unk>", "<blk>", "<s>"}  # that can be made of the letters above
    bad = [w for w in words if w in names or re.fullmatch("#0+", w) or {"▁", "▅"} & set(w)]
    if bad or not words:
        with pytest.raises(UserError, match=re.escape(repr(min(bad))) if bad else "no text"):
            make_lang(folder, texts, TokenOptions(kind))
        assert not (folder / "tokens.txt").exists()
        return
    tokenizer = make_lang(folder, texts, TokenOptions(kind))
    names = tokens_of(folder)
    for text in texts:
        ids = tokenizer.encode(text)
        assert not {0, names.index("<unk>")} & set(ids)
        assert tokenizer.decode(ids) == " ".join(text.split())


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
@pytest.mark.parametrize("word", ["<unk>", "<blk>", "<eps>", "<s>", "</s>", "#0", "#12", "a▁", "▅"])
def test_reserved_words_are_refused(tmp_path: Path, kind: str, word: str):
    """Case 12."""
    with pytest.raises(UserError) as error:
        make_lang(tmp_path / "bug" / "lang", ["YES NO", f"NO {word}"], TokenOptions(kind, 20))
    message = str(error.value)
    assert f"bug/train/text: the word {word!r}, 1 times there, cannot be one" in message
    assert f"python local/validate_data_dir.py --fix {tmp_path / 'bug' / 'train'} " in message


def test_what_reserved_words_are_elsewhere(tmp_path: Path):
    """A test set, or a text to align, may have them: they are unknown, and no blank."""
    for kind in ("char", "bpe", "word"):
        options = TokenOptions(kind, 40)
        tokenizer = make_lang(tmp_path / options.lang, ["b l k u n < >", "<u nk> <b lk>"], options)
        unknown = tokenizer.tokens.index("<unk>")
        for word in ("<unk>", "<blk>"):
            ids = tokenizer.encode(f"b {word}")
            assert 0 not in ids
            assert (unknown in ids) == (kind == "word")
            spelled = "b <unk>" if kind == "word" else f"b {word}"
            assert tokenizer.decode(ids) == spelled
        # sentencepiece takes the mark of a word start for a space.
        for word in ("▁", "b▁b"):
            assert tokenizer.encode(f"b {word} b") == [
                *tokenizer.encode("b"),
                unknown,
                *tokenizer.encode("b"),
            ]


def test_silence_is_not_a_word(tmp_path: Path):
    with pytest.raises(UserError, match="the word SIL, 1 times there, would be the token of sil"):
        make_lang(tmp_path / "lang_word", ["a SIL b"], TokenOptions("word"))
    tokenizer = make_lang(tmp_path / "lang_word", ["a b"], TokenOptions("word"))
    assert tokenizer.tokens == ["<blk>", "<unk>", "SIL", "a", "b"]
    assert tokenizer.decode([3, 2, 4]) == "a b"
    spelled = make_lang(tmp_path / "lang_char", ["a SIL b"], TokenOptions("char"))
    assert spelled.decode(spelled.encode("a SIL b")) == "a SIL b"


def icefall_tokens(folder: Path) -> list[str]:
    """What icefall's prepare_lang.py makes of a lexicon, for the tokens before #0."""
    entries = [line.split() for line in (folder / "lexicon.txt").read_text("utf-8").splitlines()]
    assert all(
        len(entry) > 1 and entry[0] not in ("<eps>", "#0", "<s>", "</s>") for entry in entries
    )
    tokens = sorted({token for _, *spelling in entries for token in spelling})
    assert "SIL" in tokens and not {"<eps>", "#0"} & set(tokens)
    return ["<eps>", *tokens]


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.sets(st.text("AZaz!<=09é~", min_size=1, max_size=3), min_size=1), st.booleans())
def test_icefall_gives_the_tokens_of_a_lexicon_our_ids(tmp_path_factory, words, phones):
    root = tmp_path_factory.mktemp("data")
    lines = "".join(f"{word} p{word} q\n" for word in sorted(words)) + "<UNK> SPN\n!SIL SIL\n"
    (root / "lexicon").write_text(lines, encoding="utf-8")
    options = TokenOptions("phone" if phones else "word", lexicon=str(root / "lexicon"))
    tokenizer = make_lang(root / options.lang, sorted(words), options)
    assert icefall_tokens(root / options.lang)[1:] == tokenizer.tokens[1:]
    if phones:
        assert tokenizer.decode(tokenizer.encode("<UNK>")) == "SPN"
    # It also writes tokens.txt; the folder stays what it is.
    written = [*icefall_tokens(root / options.lang), "#0", "#1"]
    text = "".join(f"{name} {i}\n" for i, name in enumerate(written))
    (root / options.lang / "tokens.txt").write_text(text, encoding="utf-8")
    assert read_lang(root / options.lang).tokens == tokenizer.tokens


@pytest.mark.parametrize("kind", ["bpe", "char", "word", "phone"])
def test_words_are_numbered_as_in_icefall(tmp_path: Path, kind: str):
    (tmp_path / "lexicon").write_text("b B\na A\nunsaid U\n<UNK> SPN\n")
    options = TokenOptions(kind, 20, str(tmp_path / "lexicon") if kind == "phone" else None)
    make_lang(tmp_path / "lang", ["b a", "B !SIL"], options)
    rows = (tmp_path / "lang" / "words.txt").read_text().splitlines()
    said = ["a", "b", "unsaid"] if kind == "phone" else ["B", "a", "b"]
    names = ["<eps>", "!SIL", "<SPOKEN_NOISE>", "<UNK>", *said, "#0", "<s>", "</s>"]
    assert rows == [f"{name} {i}" for i, name in enumerate(names)]


def test_folders_of_before_are_read(tmp_path: Path):
    """Blank and unknown were first, and there was no silence."""
    folder = tmp_path / "lang_word"
    folder.mkdir()
    (folder / "lexicon.txt").write_text("!A !A\nNO NO\nSIL SIL\n")
    (folder / "tokens.txt").write_text("<blk> 0\n<unk> 1\n!A 2\nNO 3\nSIL 4\n")
    tokenizer = read_lang(folder)
    assert tokenizer.tokens == ["<blk>", "<unk>", "!A", "NO", "SIL"]
    assert tokenizer.encode("NO SIL YES") == [3, 4, 1]
    assert tokenizer.decode([3, 4]) == "NO SIL"


def pieces(folder: Path) -> list[str]:
    return read_lang(folder).tokens


@pytest.mark.parametrize("kind", ["bpe", "char"])
def test_long_transcripts_are_cut_at_words(tmp_path: Path, capsys, kind: str):
    """Case 07: sentencepiece leaves out lines of more than 4192 bytes, without a word."""
    texts = ["NO " * 1500, "MAYBE " * 900, "YES WE CAN"] * 2
    options = TokenOptions(kind, 25)
    make_lang(tmp_path / "a", texts, options)
    assert "note: 4 transcripts have over 4192 bytes" in capsys.readouterr().out
    make_lang(tmp_path / "b", [word for text in texts for word in text.split()], options)
    assert "note" not in capsys.readouterr().out
    # The model is the same as that of the words.
    assert (tmp_path / "a/bpe.model").read_bytes() == (tmp_path / "b/bpe.model").read_bytes()
    assert {"▁", *"MAYBENOYSWC"} <= set(pieces(tmp_path / "a"))


def test_words_longer_than_a_line_are_cut_within(tmp_path: Path, capsys):
    long = "é" * 2096 + "à"  # 4194 bytes
    tokenizer = make_lang(tmp_path / "lang", [long, "b"], TokenOptions("char"))
    assert (
        "note: 1 words have over 4192 bytes: cut within for it, e.g. éééé"
        in capsys.readouterr().out
    )
    assert tokenizer.decode(tokenizer.encode(long)) == long
    assert "à" in tokenizer.tokens
    make_lang(tmp_path / "short", ["é" * 2096, "b"], TokenOptions("char"))
    assert "note" not in capsys.readouterr().out


def test_vocabularies_of_the_wrong_size(tmp_path: Path, capsys):
    for size in (3, 5, 10):  # ABEMNOSY, ▁, blank and unknown are 11
        with pytest.raises(
            UserError, match=f"vocab_size is {size}, and the characters .* are 11 tokens; set it"
        ):
            make_lang(tmp_path / "lang", ["YES NO MAYBE"] * 3, TokenOptions("bpe", size))
    assert (
        len(make_lang(tmp_path / "lang", ["YES NO MAYBE"] * 3, TokenOptions("bpe", 11)).tokens)
        == 11
    )
    assert "note" not in capsys.readouterr().out
    made = make_lang(tmp_path / "lang", ["YES NO MAYBE"] * 3, TokenOptions("bpe", 500)).tokens
    note = f"note: 500 subwords asked for, the training text gives {len(made)}\n"
    assert capsys.readouterr().out == note


@pytest.mark.parametrize("kind", ["bpe", "char", "word"])
@pytest.mark.parametrize("text", ["a", "😀", "a\tb", "\u0301", "\ufffd", "\u2028a"])
def test_small_and_strange_texts(tmp_path: Path, kind: str, text: str):
    options = TokenOptions(kind)
    tokenizer = make_lang(tmp_path / options.lang, [text], options)
    assert tokenizer.decode(tokenizer.encode(text)) == " ".join(text.split())
    tokens_of(tmp_path / options.lang)


def test_a_failure_of_sentencepiece_is_no_traceback(tmp_path: Path, monkeypatch):
    def fail(**_):
        raise RuntimeError("INTERNAL: something new")

    monkeypatch.setattr("sentencepiece.SentencePieceTrainer.train", fail)
    with pytest.raises(UserError, match="lang: sentencepiece says: INTERNAL: something new"):
        make_lang(tmp_path / "lang", ["a"], TokenOptions("char"))


def test_words_that_the_lexicon_lacks_are_said(tmp_path: Path, capsys):
    (tmp_path / "lexicon").write_text("HELLO h\nworld w\n")
    options = TokenOptions("phone", lexicon=str(tmp_path / "lexicon"))
    with pytest.raises(
        UserError,
        match=r"has none of the 1 words of the training text: .* has HELLO, "
        "the training text hello; write words the same in both",
    ):
        make_lang(tmp_path / "lang_phone", ["hello", "hello"], options)
    make_lang(tmp_path / "lang_phone", ["hello", "world world hello", "world"], options)
    assert capsys.readouterr().out == (
        f"note: {tmp_path / 'lexicon'} lacks 1 of the 2 words of the training text (40.00% of its "
        "length), e.g. hello, which is HELLO there; these words become <unk>\n"
    )


@pytest.mark.parametrize(
    ("kind", "file", "content", "message"),
    [
        ("char", "bpe.model", b"", "bpe.model cannot be read"),
        ("char", "bpe.model", b"no model", "bpe.model cannot be read"),
        ("word", "tokens.txt", b"<blk> 0\n<unk> 1\nb 2\n", "do not fit: 'a'"),
        ("word", "tokens.txt", b"<blk> 0\n<unk> 2\na 1\n", "ids are not 0, 1"),
        ("word", "tokens.txt", b"", "do not fit: '<unk>'"),
        ("word", "lexicon.txt", b"a a\n\n", "do not fit"),
        ("word", "lexicon.txt", None, "has neither bpe.model nor lexicon.txt"),
        ("word", "tokens.txt", None, "tokens.txt: no such file"),
    ],
)
def test_damaged_folders_are_named(tmp_path: Path, kind, file, content, message):
    options = TokenOptions(kind)
    folder = tmp_path / options.lang
    make_lang(folder, ["a"], options)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        read_lang(folder)
    assert str(folder) in str(error.value)
