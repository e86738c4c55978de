"""Normalisation of transcripts."""

import unicodedata


def normalise(text: str) -> str:
    """Unicode NFC with single spaces between words and none at the ends.

    Case, punctuation and tone marks stay as written: what a word is, is the corpus's decision.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())
