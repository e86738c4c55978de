"""How a repair changes the text and the ids of a Kaldi directory; nothing that was said is lost."""

import re

from plateau.text import is_reserved, name_of, odd_characters, without_odd_characters

_KEPT = {"<unk>": "[unk]", "<blk>": "[blk]"}  # they stand for something that was said


def mend_text(text: str) -> tuple[str, list[str]]:
    """A transcript that tools agree on, and what was wrong with it (nothing: an empty list).

    Kaldi refuses reserved names and odd spaces, too. `<unk>` stands for a word, so it stays as
    `[unk]`; `<s>`, `</s>`, `<eps>` and `#0` stand for none.
    """
    faults = [f"has {name_of(character)}" for character in odd_characters(text)]
    words = without_odd_characters(text).split()
    reserved = [word for word in dict.fromkeys(words) if is_reserved(word)]
    if reserved:
        faults.append(f"has {', '.join(reserved)}: reserved")
    if not faults:
        return text, []
    return " ".join(_KEPT.get(w, w) for w in words if w in _KEPT or not is_reserved(w)), faults


def mend_ids(line: bytes, count: int | None) -> tuple[bytes, list[str]]:
    """A line whose first ``count`` fields (None: all) have no odd characters, and what they had."""
    try:
        text = line.decode("utf-8").strip(" \t\r\n\v\f")
    except UnicodeDecodeError:
        return line, []
    fields = re.split("([ \t\r\n\v\f]+)", text)  # with what parts them
    faults = []
    for at in range(0, len(fields) if count is None else min(2 * count, len(fields)), 2):
        if odd := odd_characters(fields[at]):
            mended = "_".join(without_odd_characters(fields[at]).split())
            faults.append(f"id '{mended}' has {name_of(odd[0])}")
            fields[at] = mended or "_"
    return ("".join(fields).encode() if faults else line), faults
