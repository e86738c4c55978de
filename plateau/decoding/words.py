"""The words of a corpus as searches take them."""

import math
from collections import Counter
from collections.abc import Iterable

from plateau.data.tokens import Tokenizer
from plateau.text import normalise


def unigram(
    texts: Iterable[str], tokenizer: Tokenizer, lm_scale: float
) -> dict[tuple[int, ...], float]:
    """Tokens and scaled log probability of each word of ``texts``."""
    counts = Counter(word for text in texts for word in normalise(text).split())
    return {
        tuple(tokenizer.encode(word)): lm_scale * math.log(count / counts.total())
        for word, count in counts.items()
    }
