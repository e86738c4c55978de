"""Words as a model can spell them: texts to align come in another case, or with punctuation."""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence

from plateau.data.tokens import (
    ENTRIES,
    UNKNOWN,
    WORD_START,
    LexiconTokenizer,
    Tokenizer,
)
from plateau.text import is_reserved, normalise, without_odd_characters

READ_OUT = "&@%#§‰"  # punctuation to Unicode, but people say it
APOSTROPHES = str.maketrans("\u2018\u2019\u02bc", "'''")
SHOWN = 60  # letters of a model, in a message


class Speller:
    """A model's tokenizer that spells words as the model has them where it lacks them as written.

    What it spells as it is stays so. Else tried are other cases, typographic characters made plain,
    and the word without its punctuation. A word of nothing but punctuation has no tokens.

    Args:
        tokenizer: of the model.
    """

    def __init__(self, tokenizer: Tokenizer):
        self.tokens = tokenizer.tokens
        self.changed: Counter[str] = Counter()  # words that were encoded otherwise, how often
        self._tokenizer = tokenizer
        self._unknown = tokenizer.tokens.index(UNKNOWN)
        if isinstance(tokenizer, LexiconTokenizer):
            self._known = sorted(tokenizer.lexicon.keys() - {word for word, _ in ENTRIES})
            self._folded = {word.casefold(): word for word in self._known}
        else:
            self._known = sorted(t for t in self.tokens if len(t) == 1 and t != WORD_START)
            self._folded = {}
        self._spellings: dict[str, str] = {}

    def encode(self, text: str) -> list[int]:
        """Token ids of a transcript; `<unk>` is among them only for what cannot be spelt at all."""
        ids = []
        for word in normalise(text).split():
            spelling = self.spelling(word)
            self.changed[word] += spelling != word
            ids += self._tokenizer.encode(spelling)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """As the tokenizer."""
        return self._tokenizer.decode(ids)

    def reference(self, text: str) -> str:
        """As the tokenizer."""
        return self._tokenizer.reference(text)

    def spelling(self, word: str) -> str:
        """The word as the model has it; as it is where that cannot be."""
        if word not in self._spellings:
            fitting = (form for form in self._forms(word) if self._spells(form))
            self._spellings[word] = next(fitting, word)
        return self._spellings[word]

    def note(self) -> str:
        """What to say of the words that were changed; "" if there are none."""
        total = self.changed.total()
        if not total:
            return ""
        word = self.changed.most_common(1)[0][0]
        form = self.spelling(word) or "(nothing, it is punctuation)"
        return f"{total} words were written as the model has them, e.g. {word} → {form}"

    def lacking(self, words: Sequence[str]) -> str:
        """Why these words cannot be spelt: what the model lacks, and what it knows."""
        known = " ".join(self._known[:SHOWN]) + " …" * (len(self._known) > SHOWN)
        lacks = "them"
        if not self._folded:
            letters = dict.fromkeys(c for word in words for c in word if self._letter(c) is None)
            lacks = " ".join(letters) or "them"
        return f"{', '.join(dict.fromkeys(words))}; it lacks {lacks}, and knows: {known}"

    def _spells(self, form: str) -> bool:
        return not is_reserved(form) and self._unknown not in self._tokenizer.encode(form)

    def _forms(self, word: str) -> Iterator[str]:
        """Ways to write a word, nearest first."""
        yield word
        if is_reserved(word):
            return
        plain = unicodedata.normalize("NFKC", without_odd_characters(word).translate(APOSTROPHES))
        inner = plain
        while inner and _is_silent(inner[0]):
            inner = inner[1:]
        while inner and _is_silent(inner[-1]):
            inner = inner[:-1]
        bare = "".join(c for c in plain if not _is_silent(c))
        for form in (word, plain, inner, bare):
            yield from (form, form.upper(), form.lower())
            if form.casefold() in self._folded:
                yield self._folded[form.casefold()]
        yield "".join(c if (letter := self._letter(c)) is None else letter for c in plain)

    def _letter(self, c: str) -> str | None:
        """A single letter as the model has it, "" for punctuation that it lacks; None if it lacks
        the letter."""
        for form in (c, c.upper(), c.lower(), unicodedata.normalize("NFKC", c)):
            if form and self._spells(form):
                return form
        return "" if _is_silent(c) else None


def _is_silent(c: str) -> bool:
    """Whether a character is punctuation that nobody says."""
    return unicodedata.category(c).startswith("P") and c not in READ_OUT
