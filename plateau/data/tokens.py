"""Tokens: what a model emits. Blank is 0; the folder `lang_<kind>` is in icefall's form.

`tokens.txt` has a line `<token> <id>` per token. Subwords and characters are a sentencepiece model
(`bpe.model`), in which "▁" marks the start of a word; words and phones are a `lexicon.txt` with a
line `<word> <token> [<token> …]` per word. `words.txt` numbers the words.

icefall's `prepare_lang.py` numbers the tokens of a lexicon anew: sorted, from 1. So ours are sorted
too, and with them are `<unk>` and `SIL`, of the entries `<UNK>` and `!SIL` that its graphs have for
unknown words and pauses. No transcript has these two: the model learns not to say them.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import sentencepiece

from plateau.config import UserError
from plateau.data.corpus import TRAIN
from plateau.data.lexicon import UNKNOWN, read_lexicon
from plateau.io import replacing, write_text
from plateau.ranges import at_least, check_options
from plateau.text import (
    WORD_START,  # of sentencepiece: what begins a word, and a token by itself
    is_reserved,
    missing_words,
    normalise,
    odd_characters,
    read_lines,
)

BLANK = "<blk>"
BLANK_ID = 0
SILENCE = "SIL"
# What icefall's graphs need in a lexicon: words for pauses and for what is unknown.
ENTRIES = (("!SIL", SILENCE), ("<UNK>", UNKNOWN))
FIRST_WORDS = ("<eps>", "!SIL", "<SPOKEN_NOISE>", "<UNK>")  # of words.txt
LAST_WORDS = ("#0", "<s>", "</s>")
MAX_BYTES = 4192  # of a line: sentencepiece leaves longer ones out


@dataclass(frozen=True)
class TokenOptions:
    """What the model emits.

    Args:
        kind: subwords (bpe), characters, words, or phones of a lexicon
        vocab_size: size of the BPE vocabulary, blank and unknown included; fewer are made where
            the training text has not enough material
        lexicon: for phones: path of a file with lines "<word> <phone> [<phone> …]", or of a
            dictionary of Kaldi or MFA with probabilities; the most probable pronunciation of a
            word is taken, or else the first
    """

    kind: Literal["bpe", "char", "word", "phone"] = "bpe"
    vocab_size: int = 500
    lexicon: str | None = None

    def __post_init__(self) -> None:
        check_options(self, "tokens", vocab_size=at_least(3, 65536))
        if self.kind == "phone" and not self.lexicon:
            raise UserError(
                f"tokens.lexicon is {self.lexicon!r}; with tokens.kind=phone it must be a file "
                "with lines '<word> <phone> …'"
            )

    @property
    def lang(self) -> str:
        """Name of the token folder, e.g. ``lang_bpe_500``."""
        return f"lang_bpe_{self.vocab_size}" if self.kind == "bpe" else f"lang_{self.kind}"


class Tokenizer(Protocol):
    """Text to token ids and back."""

    tokens: list[str]

    def encode(self, text: str) -> list[int]:
        """Token ids of a transcript; unknown parts become `<unk>`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """The words that the tokens spell."""
        ...

    def reference(self, text: str) -> str:
        """What a hypothesis of `decode` is scored against."""
        ...


class SentencePieceTokenizer:
    """Subwords or characters by sentencepiece."""

    def __init__(self, model: Path):
        self.processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
        self.tokens = [
            self.processor.id_to_piece(i) for i in range(self.processor.get_piece_size())
        ]

    def encode(self, text: str) -> list[int]:
        """Token ids of a transcript."""
        text = normalise(text)
        if WORD_START not in text:
            return self.processor.encode(text)
        # sentencepiece would take it for a space.
        return [
            token
            for word in text.split()
            for token in (
                [self.processor.unk_id()] if WORD_START in word else self.processor.encode(word)
            )
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """The words that the tokens spell."""
        # Not sentencepiece's own decode: it drops nothing silently and keeps <unk> visible.
        return " ".join("".join(self.tokens[i] for i in ids).replace(WORD_START, " ").split())

    def reference(self, text: str) -> str:
        """The words as written."""
        return normalise(text)


class LexiconTokenizer:
    """Words or phones by a lexicon: one or more tokens per word."""

    def __init__(self, tokens: list[str], lexicon: dict[str, list[str]], *, phones: bool):
        self.tokens = tokens
        self.lexicon = lexicon
        ids = {token: i for i, token in enumerate(tokens)}
        self._unknown = ids[UNKNOWN]
        self._ids = {word: [ids[t] for t in prons] for word, prons in lexicon.items()}
        self._phones = phones
        self._unsaid = {ids[SILENCE]} if SILENCE in ids and SILENCE not in lexicon else set()

    def encode(self, text: str) -> list[int]:
        """Token ids of a transcript; a word that is not in the lexicon becomes `<unk>`."""
        words = normalise(text).split()
        return [i for word in words for i in self._ids.get(word, [self._unknown])]

    def decode(self, ids: Sequence[int]) -> str:
        """The tokens, separated by spaces, without those of silence."""
        return " ".join(self.tokens[i] for i in ids if i not in self._unsaid)

    def reference(self, text: str) -> str:
        """The words as written, or for phones their pronunciation."""
        return self.decode(self.encode(text)) if self._phones else normalise(text)


def encode_words(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """Token ids of each word of a transcript; joined, they are those of the transcript."""
    return [tokenizer.encode(word) for word in normalise(text).split()]


def min_frames(ids: Sequence[int]) -> int:
    """Frames that CTC needs at least: one per token, and a blank between equal neighbours."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def make_lang(lang_dir: Path, texts: Iterable[str], options: TokenOptions) -> Tokenizer:
    """Make the token folder from the training transcripts and return its tokenizer.

    What is worth a note is printed: lines cut for sentencepiece, fewer tokens than asked for, words
    that a lexicon lacks.

    Raises:
        UserError: the text is empty or has a word that cannot be one; the lexicon cannot be read or
            has no word of the text; the vocabulary is too small for the characters.
    """
    lang_dir = Path(lang_dir)
    lang_dir.mkdir(parents=True, exist_ok=True)
    texts = [t for t in map(normalise, texts) if t]
    if not texts:
        raise UserError(f"{lang_dir}: the training set has no text to make tokens from")
    said = Counter(word for text in texts for word in text.split())
    _check_words(said, lang_dir, options.kind)
    words = set(said)
    if options.kind in ("bpe", "char"):
        with replacing(lang_dir / "bpe.model") as model:
            _train_sentencepiece(model, texts, options, str(lang_dir))
        tokens = SentencePieceTokenizer(lang_dir / "bpe.model").tokens
    else:
        lexicon = {word: [word] for word in sorted(words)}
        if options.kind == "phone":
            lexicon = read_lexicon(Path(options.lexicon))
            if note := missing_words(said, lexicon, options.lexicon, "the training text"):
                print(f"note: {note}; these words become {UNKNOWN}")
            words = set(lexicon)
        entries = [(word, " ".join(spelling)) for word, spelling in lexicon.items()]
        entries += [entry for entry in ENTRIES if entry not in entries]
        write_text(lang_dir / "lexicon.txt", "".join(f"{w} {t}\n" for w, t in entries))
        tokens = [BLANK, *sorted({token for _, spelling in entries for token in spelling.split()})]
    write_text(lang_dir / "tokens.txt", _numbered(tokens))
    middle = sorted(words.difference(FIRST_WORDS, LAST_WORDS))
    write_text(lang_dir / "words.txt", _numbered([*FIRST_WORDS, *middle, *LAST_WORDS]))
    return read_lang(lang_dir)


def _numbered(names: Iterable[str]) -> str:
    return "".join(f"{name} {i}\n" for i, name in enumerate(names))


def _check_words(said: Counter[str], lang_dir: Path, kind: str) -> None:
    """Refuse words that tools, or we, would take for something else."""
    data = lang_dir.parent / TRAIN
    for word in sorted(said):
        if is_reserved(word) or odd_characters(word):
            raise UserError(
                f"{data / 'text'}: the word {word!r}, {said[word]} times there, cannot be one: "
                "tools use it, or a character of it, for something else\n"
                f"python local/validate_data_dir.py --fix {data} writes it otherwise; then run.sh "
                "again"
            )
        if kind == "word" and word == SILENCE:
            raise UserError(
                f"{data / 'text'}: the word {SILENCE}, {said[word]} times there, would be the "
                "token of silence; write it otherwise, e.g. sil, or set tokens.kind=char"
            )


def read_lang(lang_dir: Path) -> Tokenizer:
    """The tokenizer of a token folder, also of one that icefall's scripts have added to.

    Raises:
        UserError: it is not there, or its files do not belong together.
    """
    lang_dir = Path(lang_dir)
    try:
        if (lang_dir / "bpe.model").exists():
            return SentencePieceTokenizer(lang_dir / "bpe.model")
        if (lang_dir / "lexicon.txt").exists():
            tokens = _read_tokens(lang_dir / "tokens.txt")
            lexicon: dict[str, list[str]] = {}
            for line in read_lines(lang_dir / "lexicon.txt"):
                word, *spelling = line.split()
                lexicon.setdefault(word, spelling)
            return LexiconTokenizer(tokens, lexicon, phones=lang_dir.name == "lang_phone")
        reason = "has neither bpe.model nor lexicon.txt"
    except (RuntimeError, OSError) as error:  # sentencepiece's
        reason = f"bpe.model cannot be read: {error}"
    except (ValueError, KeyError) as error:
        reason = f"lexicon.txt and tokens.txt do not fit: {error}"
    raise UserError(f"{lang_dir}: {reason}\nremove the folder, and give the run.sh command again")


def _read_tokens(path: Path) -> list[str]:
    """All tokens in the order of their ids."""
    rows = [line.split() for line in read_lines(path)]
    if [row[1:] for row in rows] != [[str(i)] for i in range(len(rows))]:
        raise ValueError("ids are not 0, 1, …")
    names = [row[0] for row in rows]
    # icefall's prepare_lang.py calls blank <eps>, and adds #0, #1, … at the end.
    return [BLANK, *(name for name in names[1:] if not (name[0] == "#" and is_reserved(name)))]


def _train_sentencepiece(model: Path, texts: list[str], options: TokenOptions, where: str) -> None:
    """Train a BPE or character model whose id 0 is blank and 1 is unknown."""
    needed = len({c for text in texts for c in text if c != " "}) + 3  # word mark, blank, unknown
    size = options.vocab_size if options.kind == "bpe" else needed
    if size < needed:
        raise UserError(
            f"tokens.vocab_size is {size}, and the characters of the text, {BLANK}, {UNKNOWN} and "
            f"{WORD_START} are {needed} tokens; set it to that or more, or take tokens.kind=char"
        )
    lines = _lines(texts)
    while True:
        try:
            with model.open("wb") as writer:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(lines),
                    model_writer=writer,
                    vocab_size=size,
                    model_type=options.kind,
                    character_coverage=1.0,
                    normalization_rule_name="identity",  # tone marks and case stay as written
                    control_symbols=[BLANK],
                    unk_id=1,
                    unk_piece=UNKNOWN,
                    bos_id=-1,
                    eos_id=-1,
                    num_threads=1,
                    minloglevel=2,
                )
            break
        except RuntimeError as error:
            # A corpus of few words (yesno) has fewer merges than asked for, and sentencepiece
            # refuses; its message names the size that is possible.
            possible = str(error).rpartition("<=")[2].strip(" .\n")
            if not possible.isdigit() or int(possible) >= size:
                raise UserError(f"{where}: sentencepiece says: {error}") from None
            size = int(possible)
    if size < options.vocab_size and options.kind == "bpe":
        print(f"note: {options.vocab_size} subwords asked for, the training text gives {size}")


def _lines(texts: Iterable[str]) -> list[str]:
    """Texts as sentencepiece takes them: long ones are cut at words, long words at characters.

    Its model is of words, so that cutting between them changes nothing.
    """
    lines, cut = [], 0
    long_words: list[str] = []
    for text in texts:
        if len(text.encode()) <= MAX_BYTES:
            lines.append(text)
            continue
        cut += 1
        for word in text.split():
            if len(word.encode()) <= MAX_BYTES:
                lines.append(word)
            else:
                long_words.append(word)
                step = MAX_BYTES // 4  # UTF-8 has up to four bytes a character
                lines += [word[i : i + step] for i in range(0, len(word), step)]
    if cut:
        print(
            f"note: {cut} transcripts have over {MAX_BYTES} bytes, which sentencepiece leaves out: "
            "cut at words for it"
        )
    if long_words:
        print(
            f"note: {len(long_words)} words have over {MAX_BYTES} bytes: cut within for it, e.g. "
            f"{long_words[0][:20]}…"
        )
    return lines
