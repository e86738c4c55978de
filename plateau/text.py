"""Text: how files of it are read, how transcripts are normalised, and what may not be in them."""

import re
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from plateau.errors import UserError

BOM = b"\xef\xbb\xbf"
# Names that tools take for something else than what is said: Kaldi, OpenFst and icefall for the
# empty label, for the ends of a sentence and for disambiguation (#0, #1 …), and Plateau for blank
# and for what it does not know.
RESERVED = ("<eps>", "<blk>", "<unk>", "<s>", "</s>")
_DISAMBIGUATION = re.compile(r"#\d+")
# Written for their effect on a page, not to be read out: zero-width space, word joiner, byte order
# mark, soft hyphen, marks of direction. The joiners U+200C and U+200D are letters' in some scripts.
_INVISIBLE = frozenset("\u200b\u2060\ufeff\u00ad\u200e\u200f\u202a\u202b\u202c\u202d\u202e")
# sentencepiece writes the first for a space, and leaves out whole lines that have the second.
WORD_START = "▁"
_OF_SENTENCEPIECE = (WORD_START, "▅")


def normalise(text: str) -> str:
    """Unicode NFC with single spaces between words and none at the ends.

    Case, punctuation and tone marks stay as written: what a word is, is the corpus's decision.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def is_reserved(name: str) -> bool:
    """Whether a word, phone or character would be taken for something else; see `RESERVED`."""
    return name in RESERVED or _DISAMBIGUATION.fullmatch(name) is not None


def odd_characters(text: str) -> list[str]:
    """Characters that no line of text should have, each once, in order.

    These are control characters but the tab, spaces but the ordinary one, and invisible ones: tools
    do not agree on whether a word ends there. Kaldi parts words by ASCII white space only. And the
    two that sentencepiece uses for itself.
    """
    return list(dict.fromkeys(c for c in text if _is_odd(c)))


def without_odd_characters(text: str) -> str:
    """The text without them: ``_`` for sentencepiece's two, a space for others that can be seen."""
    return "".join(_instead_of(c) if _is_odd(c) else c for c in text)


def _instead_of(c: str) -> str:
    if c in _INVISIBLE:
        return ""
    return "_" if c in _OF_SENTENCEPIECE else " "


def _is_odd(c: str) -> bool:
    if c in _INVISIBLE or c in _OF_SENTENCEPIECE:
        return True
    return c not in " \t" and unicodedata.category(c) in ("Cc", "Zs", "Zl", "Zp")


def name_of(character: str) -> str:
    """A character's code point and name, e.g. ``U+00A0 NO-BREAK SPACE``, to be shown to people."""
    return f"U+{ord(character):04X} {unicodedata.name(character, 'control character')}"


def missing_words(said: Mapping[str, int], known: Collection[str], whose: str, text: str) -> str:
    """What to tell of a text's words that a lexicon or language model lacks; "" if it has them all.

    Args:
        said: words of the text, and how often each is there; all 1 where that is not known.
        known: words of the other side.
        whose: what to call the other side.
        text: what to call the text.

    Raises:
        UserError: none of the words is known.
    """
    missing = sorted(said.keys() - set(known), key=lambda word: (-said[word], word))
    if not missing:
        return ""
    written = {word.casefold(): word for word in sorted(known)}
    pair = next(((written[w.casefold()], w) for w in missing if w.casefold() in written), None)
    if len(missing) == len(said):
        there, here = pair or (min(known, default="no word"), missing[0])
        raise UserError(
            f"{whose} has none of the {len(said)} words of {text}: {whose} has {there}, {text} "
            f"{here}; write words the same in both"
        )
    total = sum(said.values())
    share = f" ({sum(said[w] for w in missing) / total:.2%} of its length)"
    example = f"{missing[0]}" if pair is None else f"{pair[1]}, which is {pair[0]} there"
    return (
        f"{whose} lacks {len(missing)} of the {len(said)} words of {text}"
        f"{share if total > len(said) else ''}, e.g. {example}"
    )


def decode(content: bytes) -> str:
    """Text of a file: UTF-8, with or without a byte order mark.

    Raises:
        ValueError: what it is instead.
    """
    if content.startswith(b"\x1f\x8b"):
        raise ValueError("compressed by gzip; unpack it: gunzip < FILE > NEW")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ValueError("UTF-16, not UTF-8; convert it: iconv -f UTF-16 -t UTF-8 FILE > NEW")
    try:
        text = content.removeprefix(BOM).decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        byte = f"byte 0x{content[error.start]:02x}"
        raise ValueError(f"not UTF-8: line {line} has {byte}; save the file as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"not a text file: line {line} has a NUL character")
    return text


def read_text(path: Path) -> str:
    """A text file that a person or another tool wrote; see `decode`.

    Raises:
        UserError: names the file, and says why it cannot be read.
    """
    try:
        return decode(Path(path).read_bytes())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None


def read_lines(path: Path) -> list[str]:
    """Lines of a text file without their ends (LF or CRLF); raises as `read_text` does.

    Not `str.splitlines`, which also parts lines at characters such as U+2028 or U+0085.
    """
    text = read_text(path)
    return [line.removesuffix("\r") for line in text.removesuffix("\n").split("\n")] if text else []
