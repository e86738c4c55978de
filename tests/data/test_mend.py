import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.data.mend import mend_ids, mend_text
from plateau.text import is_reserved, odd_characters


@pytest.mark.parametrize(
    ("text", "mended", "fault"),
    [
        ("a b", "a b", None),
        ("tɔ́ŋ क्‍ष 中文", "tɔ́ŋ क्‍ष 中文", None),
        ("<s> a </s>", "a", "has <s>, </s>: reserved"),
        ("a <eps> b #0 #17", "a b", "has <eps>, #0, #17: reserved"),
        ("a <unk> <blk> <unk>", "a [unk] [blk] [unk]", "has <unk>, <blk>: reserved"),
        ("<noise> #x # [unk] <S>", "<noise> #x # [unk] <S>", None),
        ("10\u00a0000", "10 000", "has U+00A0 NO-BREAK SPACE"),
        ("中\u3000文", "中 文", "has U+3000 IDEOGRAPHIC SPACE"),
        ("a\u200bb", "ab", "has U+200B ZERO WIDTH SPACE"),
        ("\ufeffa", "a", "has U+FEFF ZERO WIDTH NO-BREAK SPACE"),
        ("a\x00b\x1bc", "a b c", "has U+0000 control character"),
        ("a\x0bb", "a b", "has U+000B control character"),
        ("a\u2028b", "a b", "has U+2028 LINE SEPARATOR"),
        ("\u2581a b", "_a b", "has U+2581 LOWER ONE EIGHTH BLOCK"),
        ("<s\u200b>", "", "has <s>: reserved"),
    ],
)
def test_texts(text, mended, fault):
    found, faults = mend_text(text)
    assert found == mended
    assert (fault is None) == (faults == [])
    assert fault is None or any(f.startswith(fault) for f in faults)


names = st.sampled_from(
    ["<s>", "</s>", "<eps>", "#0", "<unk>", "<blk>", "a", "\u00a0", "\u200b", " "]
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(text=st.lists(st.one_of(names, st.characters(exclude_categories=("Cs",)))).map("".join))
def test_what_is_mended_has_no_fault_left(text):
    mended, faults = mend_text(text)
    assert mend_text(mended) == (mended, [])
    if faults:
        assert not odd_characters(mended)
        assert not any(is_reserved(word) for word in mended.split())
    # letters and digits are never lost
    spoken = [c for c in text if unicodedata.category(c)[0] in "LN"]
    kept = [c for c in mended if unicodedata.category(c)[0] in "LN"]
    assert kept == spoken or any("reserved" in fault for fault in faults)


@pytest.mark.parametrize(
    ("line", "count", "mended", "faults"),
    [
        (b"a-1 b\r", 1, b"a-1 b\r", []),
        (b"a\xc2\xa01 x\xc2\xa0y", 1, b"a_1 x\xc2\xa0y", ["id 'a_1' has U+00A0 NO-BREAK SPACE"]),
        (b"a\xe2\x80\x8b-1  \ta\xe2\x80\x8b", None, b"a-1  \ta", ["id 'a-1'", "id 'a'"]),
        (b"\xff x", 1, b"\xff x", []),
    ],
)
def test_ids(line, count, mended, faults):
    found, said = mend_ids(line, count)
    assert found == mended
    assert len(said) == len(faults)
    assert all(one.startswith(other) for one, other in zip(said, faults, strict=True))
