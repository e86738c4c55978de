"""Truth by trying everything: all alignments of a few frames, one by one, in double precision.

Nothing here comes from the code under test. Letters a, b, … of a pattern are labels 0, 1, …; B is
blank or silence, the last label.
"""

import itertools
import re
from collections.abc import Sequence

import torch
from torch import Tensor

# The label topologies of Zeyer, Schlüter, Ney 2021, as they write them, …
STANDARD_PATTERNS = {
    "1label": "B*a+B*",
    "1label_2times": "B*a+B+a+B*",
    "2label": "B*a+B*b+B*",
    "3label_blank": "B*a+B*b+B*c+B*",
    "3label_sil": "B*a+b+c+B*",
    "4label_2words_blank": "B*a+B*b+B*c+B*d+B*",
    "4label_2words_sil": "B*a+b+c+B*d+B*",
}
# … and others: the pattern of a topology's name and a transcript, `|` between words.
OTHER_PATTERNS = {
    ("ctc", "0 0 1"): "B*a+B+a+B*b+B*",
    ("ctc_without_inner_blank", "0 1"): "B*a+b+B*",
    ("ctc_without_inner_blank", "0 0 1 0"): "B*a+B+a+b+a+B*",
    ("silence", "0 1 | 2 | 0"): "B*a+b+B*c+B*a+B*",
    ("forced_silence", "0 1 | 2"): "B+a+b+B+c+B+",
    ("forced_silence", "0 | 0"): "B+a+B+a+B+",
    ("hmm", "0 1 0"): "a+b+a+",
}

Arc = tuple[int, int, int, float]  # source, target, label, score; label -1 ends a path
Path = tuple[tuple[int, ...], float]  # labels, score


def num_labels(pattern: str) -> int:
    """V: the letters up to the largest one, and B."""
    return ord(max(re.findall("[a-z]", pattern))) - ord("a") + 2


def sequences(pattern: str, num_frames: int) -> list[tuple[int, ...]]:
    """All label sequences that the regular expression accepts."""
    size = num_labels(pattern)
    letters = [chr(ord("a") + label) for label in range(size - 1)] + ["B"]
    accepts = re.compile(pattern).fullmatch
    return [
        labels
        for labels in itertools.product(range(size), repeat=num_frames)
        if accepts("".join(letters[label] for label in labels))
    ]


def walk(arcs: Sequence[Arc], num_frames: int) -> list[Path]:
    """All paths from state 0 that read ``num_frames`` labels and then end, sorted."""
    walks = [(0, (), 0.0)]
    for _ in range(num_frames):
        walks = [
            (target, (*labels, label), total + score)
            for state, labels, total in walks
            for source, target, label, score in arcs
            if source == state and label != -1
        ]
    return sorted(
        (labels, total + score)
        for state, labels, total in walks
        for source, _, label, score in arcs
        if source == state and label == -1
    )


def collapse(path: Sequence[int], blank: int = 0) -> list[int]:
    """The labels that a path of CTC stands for."""
    return [label for label, _ in itertools.groupby(path) if label != blank]


def total(scores: Tensor, paths: Sequence[Path], best: bool = False) -> Tensor:
    """The log of the summed weight of the paths, or the weight of the best one.

    Args:
        scores: (T, V).
    """
    labels = torch.tensor([labels for labels, _ in paths])  # (P, T)
    weights = torch.tensor([weight for _, weight in paths], dtype=scores.dtype)
    values = scores[torch.arange(labels.shape[1]), labels].sum(1) + weights  # (P,)
    return values.max() if best else values.logsumexp(0)


def unweighted(labels: Sequence[tuple[int, ...]]) -> list[Path]:
    """Label sequences as paths of score 0."""
    return [(sequence, 0.0) for sequence in labels]


# A batch of CTC problems, blank 0.
TARGETS = [[1, 2], [], [2, 2], [1], [3, 1, 3], [1, 1, 1]]
LENGTHS = torch.tensor([3, 2, 4, 1, 5, 5])  # the last just fits: 3 labels and 2 blanks


def ctc_paths(target: Sequence[int], num_frames: int, size: int = 4) -> list[Path]:
    """The alignments of a target."""
    every = itertools.product(range(size), repeat=num_frames)
    return unweighted([path for path in every if collapse(path) == list(target)])


def random_scores(seed: int = 0, normalised: bool = True, dtype=torch.float64) -> Tensor:
    """Scores for that batch, (6, 5, 4)."""
    generator = torch.Generator().manual_seed(seed)
    values = (2 * torch.randn(len(TARGETS), 5, 4, generator=generator)).to(dtype)
    return values.log_softmax(-1) if normalised else values
