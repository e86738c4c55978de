"""Which utterances are shown; see test_report.py too."""

from plateau.decoding.scoring import score
from plateau.report.utterances import choose


def test_without_errors_nothing_is_called_worst():
    texts = {"a": "x", "b": "x y z", "c": "x y", "d": "x", "e": ""}
    right = score(texts, texts).utterances
    assert choose(right, 2, 1) == {
        "b": ["most words without an error"], "c": ["most words without an error"],
        "a": ["median length"],
    }  # fmt: skip
    one_wrong = score(texts, texts | {"d": "z"}).utterances
    assert choose(one_wrong, 2, 1) == {
        "d": ["worst"], "b": ["most words without an error"], "c": ["median"]
    }  # fmt: skip
