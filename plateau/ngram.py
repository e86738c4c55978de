"""N-gram language models of words, by interpolated modified Kneser-Ney smoothing.

Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling" (TR-10-98,
section 4.1.6). With adjusted counts a(·) of n-grams and discounts D,

    p(w | h) = (a(h w) - D(a(h w))) / Σ_v a(h v) + γ(h) p(w | h'),

where h' is h without its first word, and γ(h) = Σ_v D(a(h v)) / Σ_v a(h v) makes the sum 1. Below
the words stands the uniform distribution over the words seen and the end of the sentence. There is
no unknown word: what was not seen has probability 0.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plateau.config import UserError
from plateau.io import write_text
from plateau.text import is_reserved, read_lines

START, END = "<s>", "</s>"
MAX_ORDER = 5
# kenlm's too, where the counts of counts give none.
FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)

Ngram = tuple[str, ...]


@dataclass(frozen=True)
class NgramModel:
    """A back-off model: p(w | h) is that of the n-gram h w, or else γ(h) p(w | h').

    Args:
        probs: p(w | h) of each n-gram h w that was seen, interpolated; 0 for the start
        backoffs: γ(h) of each history h that was seen, the empty one too
    """

    probs: dict[Ngram, float]
    backoffs: dict[Ngram, float]

    @property
    def sizes(self) -> list[int]:
        """Number of n-grams for n = 1 …, with those of start and end."""
        counts = Counter(map(len, self.probs))
        return [counts[n] for n in sorted(counts)]

    def prob(self, word: str, history: Sequence[str]) -> float:
        """p(word | history); 0 for an unseen word.

        Args:
            word: may be `END`
            history: from `START` on, or any number of words; unseen words are allowed
        """
        context = tuple(history[max(0, len(history) + 1 - len(self.sizes)) :])
        weight = 1.0
        while context and (*context, word) not in self.probs:
            weight *= self.backoffs.get(context, 1.0)
            context = context[1:]
        return weight * self.probs.get((*context, word), 0.0)

    def log_probs(self, sentence: Sequence[str]) -> list[float]:
        """Natural log probabilities of the words and of the end; -inf for unseen words."""
        words = (START, *sentence, END)
        probs = [self.prob(words[i], words[:i]) for i in range(1, len(words))]
        return [math.log(p) if p > 0 else -math.inf for p in probs]

    def perplexity(self, sentences: Iterable[Sequence[str]]) -> tuple[float, int]:
        """Perplexity per word, ends of sentences counted, unseen words left out; and their number.

        There must be a sentence.
        """
        log_probs = [p for sentence in sentences for p in self.log_probs(sentence)]
        known = [p for p in log_probs if p > -math.inf]
        return math.exp(-sum(known) / len(known)), len(log_probs) - len(known)

    def write_arpa(self, path: Path) -> None:
        """Write the model in ARPA format, atomically."""
        lines = ["\\data\\", *(f"ngram {n}={size}" for n, size in enumerate(self.sizes, start=1))]
        ngrams = sorted(self.probs)
        for n in range(1, len(self.sizes) + 1):
            lines += ["", f"\\{n}-grams:"]
            for ngram in ngrams:
                if len(ngram) == n:
                    p = self.probs[ngram]
                    fields = [f"{math.log10(p):.8f}" if p > 0 else "-99", " ".join(ngram)]
                    if ngram in self.backoffs:
                        fields.append(f"{math.log10(self.backoffs[ngram]):.8f}")
                    lines.append("\t".join(fields))
        write_text(path, "\n".join([*lines, "", "\\end\\", ""]))


def estimate(sentences: Iterable[Sequence[str]], order: int) -> NgramModel:
    """The model of some sentences; its order is lower where no sentence is long enough.

    Args:
        sentences: words of each, at least one sentence; one without words is a sentence too
        order: longest n-gram, 1 to `MAX_ORDER`

    Raises:
        UserError: no sentence, an order out of range, a word that is reserved or has white space.
    """
    if not 1 <= order <= MAX_ORDER:
        raise UserError(f"order of the n-grams is {order}; give 1 to {MAX_ORDER}")
    probs: dict[Ngram, float] = {}
    backoffs: dict[Ngram, float] = {}
    for counts in _adjusted_counts(sentences, order):
        discounts = _discounts(counts)
        totals: Counter[Ngram] = Counter()
        taken: Counter[Ngram] = Counter()
        for ngram, count in counts.items():
            totals[ngram[:-1]] += count
            taken[ngram[:-1]] += discounts[min(count, 3) - 1]
        for history, total in totals.items():
            backoffs[history] = taken[history] / total
        for ngram, count in counts.items():
            history = ngram[:-1]
            lower = probs[ngram[1:]] if history else 1 / len(counts)
            seen = (count - discounts[min(count, 3) - 1]) / totals[history]
            probs[ngram] = seen + backoffs[history] * lower
    probs[START,] = 0.0  # nobody says it, but ARPA has its back-off
    return NgramModel(probs, backoffs)


def _adjusted_counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Ngram]]:
    """For each length the counts of n-grams that Kneser-Ney smoothing takes; the start is none.

    How often the longest n-grams occur, and before how many words shorter ones do. What begins a
    sentence has no word before it, its occurrences count (Heafield et al. 2013, "Scalable modified
    Kneser-Ney language model estimation").
    """
    occurrences: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        if reserved := next(filter(is_reserved, sentence), None):
            raise UserError(
                f"the word '{reserved}' is a name that tools use for something else; take it out"
            )
        for word in sentence:
            if word.split() != [word]:
                raise UserError(f"the word {word!r} is empty or has white space; part it")
        words = (START, *sentence, END)
        for n, counts in enumerate(occurrences, start=1):
            counts.update(words[i : i + n] for i in range(len(words) - n + 1))
    if not occurrences[0]:
        raise UserError("no sentences to estimate n-grams from")
    adjusted = []
    for counts, longer in zip(occurrences, [*occurrences[1:], None], strict=True):
        if longer is not None:
            starting = {ngram: count for ngram, count in counts.items() if ngram[0] == START}
            counts = Counter(ngram[1:] for ngram in longer) + Counter(starting)
        adjusted.append(counts)
    del adjusted[0][START,]
    return [counts for counts in adjusted if counts]


def _discounts(counts: Counter[Ngram]) -> tuple[float, ...]:
    """What is taken from counts of 1, of 2, and of 3 or more (Chen & Goodman 1998, eq. 26).

    A small text can lack n-grams of a count, or have more that occur often than seldom, so that a
    discount is undefined, or not between 0 and the count: then `FALLBACK_DISCOUNTS`.
    """
    n = Counter(counts.values())
    if not all(n[k] for k in (1, 2, 3, 4)):
        return FALLBACK_DISCOUNTS
    y = n[1] / (n[1] + 2 * n[2])
    found = tuple(k - (k + 1) * y * n[k + 1] / n[k] for k in (1, 2, 3))
    return found if min(found) > 0 else FALLBACK_DISCOUNTS


def read_arpa(path: Path) -> tuple[list[str], set[str]]:
    """Read a language model in ARPA format that another tool made.

    Returns:
        its lines from ``\\data\\`` on, without byte order mark and carriage returns, in Unicode NFC
        as transcripts are; and its words, without those of reserved names.

    Raises:
        UserError: names the file, and the line where there is one, and what is wrong.
    """
    lines = [unicodedata.normalize("NFC", line.strip(" \t")) for line in read_lines(path)]
    if "\\data\\" not in lines:
        raise UserError(f"{path}: no line \\data\\; give a language model in ARPA format")
    begin = lines.index("\\data\\")
    if "\\end\\" not in lines[begin:]:
        raise UserError(f"{path}: no line \\end\\, so the end is missing; make the file again")
    end = lines.index("\\end\\", begin)
    sizes: dict[int, int] = {}
    counts: Counter[int] = Counter()
    words: set[str] = set()
    order = 0
    for number, line in enumerate(lines[begin + 1 : end], start=begin + 2):
        if not line:
            continue
        if size := re.fullmatch(r"ngram +(\d+) *= *(\d+)", line):
            sizes[int(size[1])] = int(size[2])
        elif section := re.fullmatch(r"\\(\d+)-grams:", line):
            order = int(section[1])
        else:
            fields = line.replace("\t", " ").split(" ")
            fields = [field for field in fields if field]
            if not order or len(fields) - order not in (1, 2) or not _are_numbers(fields, order):
                what = f"an n-gram of {order} words" if order else "of the form 'ngram N=COUNT'"
                raise UserError(f"{path}:{number}: '{line}' is not {what}")
            counts[order] += 1
            if order == 1:
                words.add(fields[1])
                if is_reserved(fields[1]) and fields[1] not in (START, END, "<unk>"):
                    raise UserError(f"{path}:{number}: '{fields[1]}' cannot be a word; take it out")
    for n in sorted(sizes | counts):
        if sizes.get(n, 0) != counts[n]:
            raise UserError(
                f"{path}: {counts[n]} {n}-grams, and its header says {sizes.get(n, 0)}; make the "
                "file again, or correct the header"
            )
    if lacking := [word for word in (START, END) if word not in words]:
        raise UserError(f"{path}: {lacking[0]} is not among the 1-grams; a sentence needs it")
    return lines[begin : end + 1], {word for word in words if not is_reserved(word)}


def _are_numbers(fields: list[str], order: int) -> bool:
    """Whether all but the words of an n-gram's line are finite numbers."""
    try:
        return all(math.isfinite(float(field)) for field in [fields[0], *fields[1 + order :]])
    except ValueError:
        return False
