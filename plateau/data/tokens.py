"""Tokens: what a model emits. Blank is 0; the folder `lang_<kind>` is in icefall's form.

`tokens.txt` has a line `<token> <id>` per token. Subwords and characters are a sentencepiece model
(`bpe.model`), in which "▁" marks the start of a word; words and phones are a `lexicon.txt` with a
line `<word> <token> [<token> …]` per word.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol

import sentencepiece

from plateau.config import UserError
from plateau.io import replacing, write_text
from plateau.text import normalise

BLANK = "<blk>"
BLANK_ID = 0
UNKNOWN = "<unk>"
WORD_START = "▁"  # of sentencepiece: what begins a word, and a token by itself


@dataclass(frozen=True)
class TokenOptions:
    """What the model emits.

    Args:
        kind: subwords (bpe), characters, words, or phones of a lexicon
        vocab_size: size of the BPE vocabulary, blank and unknown included; fewer are made where
            the training text has not enough material
        lexicon: for phones: path of a file with lines "<word> <phone> [<phone> …]"; the first
            pronunciation of a word is taken
    """

    kind: Literal["bpe", "char", "word", "phone"] = "bpe"
    vocab_size: int = 500
    lexicon: str | None = None

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
        return self.processor.encode(normalise(text))

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
        ids = {token: i for i, token in enumerate(tokens)}
        self._unknown = ids[UNKNOWN]
        self._lexicon = {word: [ids[t] for t in prons] for word, prons in lexicon.items()}
        self._phones = phones

    def encode(self, text: str) -> list[int]:
        """Token ids of a transcript; a word that is not in the lexicon becomes `<unk>`."""
        words = normalise(text).split()
        return [i for word in words for i in self._lexicon.get(word, [self._unknown])]

    def decode(self, ids: Sequence[int]) -> str:
        """The tokens, separated by spaces."""
        return " ".join(self.tokens[i] for i in ids)

    def reference(self, text: str) -> str:
        """The words as written, or for phones their pronunciation."""
        return self.decode(self.encode(text)) if self._phones else normalise(text)


def encode_words(tokenizer: Tokenizer, text: str) -> list[list[int]]:
    """Token ids of each word of a transcript; joined, they are those of the transcript."""
    return [tokenizer.encode(word) for word in normalise(text).split()]


def min_frames(ids: Sequence[int]) -> int:
    """Frames that CTC needs at least: one per token, and a blank between equal neighbours."""
    return len(ids) + sum(a == b for a, b in pairwise(ids))


def read_lexicon(path: Path) -> dict[str, list[str]]:
    """Read `<word> <token> [<token> …]` lines; the first pronunciation of a word counts.

    Raises:
        UserError: the file is missing, or a line has a word without tokens.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise UserError(f"{path}: no such lexicon; set tokens.lexicon") from None
    lexicon: dict[str, list[str]] = {}
    for number, line in enumerate(lines, start=1):
        fields = normalise(line).split()
        if not fields:
            continue
        if len(fields) < 2:
            raise UserError(f"{path}:{number}: '{fields[0]}' has no tokens; add them")
        lexicon.setdefault(fields[0], fields[1:])
    return lexicon


def make_lang(lang_dir: Path, texts: Iterable[str], options: TokenOptions) -> Tokenizer:
    """Make the token folder from the training transcripts and return its tokenizer."""
    lang_dir = Path(lang_dir)
    lang_dir.mkdir(parents=True, exist_ok=True)
    texts = [t for t in map(normalise, texts) if t]
    if not texts:
        raise UserError(f"{lang_dir}: the training set has no text to make tokens from")
    if options.kind in ("bpe", "char"):
        with replacing(lang_dir / "bpe.model") as model:
            _train_sentencepiece(model, texts, options)
    elif options.kind == "word":
        words = sorted({word for text in texts for word in text.split()})
        write_text(lang_dir / "lexicon.txt", "".join(f"{w} {w}\n" for w in words))
    else:
        if options.lexicon is None:
            raise UserError("tokens.kind=phone needs tokens.lexicon=FILE with '<word> <phone> …'")
        lexicon = read_lexicon(Path(options.lexicon))
        text = "".join(f"{w} {' '.join(tokens)}\n" for w, tokens in lexicon.items())
        write_text(lang_dir / "lexicon.txt", text)
    tokens = _tokens_of(lang_dir)
    write_text(lang_dir / "tokens.txt", "".join(f"{t} {i}\n" for i, t in enumerate(tokens)))
    return read_lang(lang_dir)


def read_lang(lang_dir: Path) -> Tokenizer:
    """The tokenizer of a token folder."""
    lang_dir = Path(lang_dir)
    if (lang_dir / "bpe.model").exists():
        return SentencePieceTokenizer(lang_dir / "bpe.model")
    if (lang_dir / "lexicon.txt").exists():
        lexicon = read_lexicon(lang_dir / "lexicon.txt")
        phones = lang_dir.name == "lang_phone"
        return LexiconTokenizer(_tokens_of(lang_dir), lexicon, phones=phones)
    raise UserError(f"{lang_dir}: neither bpe.model nor lexicon.txt; run ./run.sh --stage 3")


def _tokens_of(lang_dir: Path) -> list[str]:
    """All tokens in the order of their ids."""
    if (lang_dir / "bpe.model").exists():
        return SentencePieceTokenizer(lang_dir / "bpe.model").tokens
    lexicon = read_lexicon(lang_dir / "lexicon.txt")
    return [BLANK, UNKNOWN, *sorted({token for tokens in lexicon.values() for token in tokens})]


def _train_sentencepiece(model: Path, texts: list[str], options: TokenOptions) -> None:
    """Train a BPE or character model whose id 0 is blank and 1 is unknown."""
    # A corpus of few words (yesno) has fewer merges than asked for, and sentencepiece refuses;
    # its message names the size that is possible.
    size = options.vocab_size if options.kind == "bpe" else 0
    characters = len({c for text in texts for c in text if c != " "}) + 1  # and the word mark
    arguments = {
        "model_type": options.kind,
        "character_coverage": 1.0,
        "normalization_rule_name": "identity",  # tone marks and case stay as written
        "control_symbols": [BLANK],
        "unk_id": 1,
        "unk_piece": UNKNOWN,
        "bos_id": -1,
        "eos_id": -1,
        "num_threads": 1,
        "minloglevel": 2,
    }
    size = max(size, characters + 2)
    while True:
        try:
            with model.open("wb") as writer:
                sentencepiece.SentencePieceTrainer.train(
                    sentence_iterator=iter(texts),
                    model_writer=writer,
                    vocab_size=size,
                    **arguments,
                )
            return
        except RuntimeError as error:
            possible = str(error).rpartition("<=")[2].strip(" .\n")
            if not possible.isdigit() or int(possible) >= size:
                raise
            size = int(possible)
