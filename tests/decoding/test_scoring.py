import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.decoding.scoring import read_scores, report, score, write_scores
from tests.sclite import counts, needs_sclite

REFERENCES = {
    "ann-1": "the cat sat on the mat",
    "ann-2": "yes  no yes",
    "bob-1": "ɛ́la été",
    "bob-2": "well",
}
HYPOTHESES = {
    "ann-1": "the hat sat the big mat",
    "ann-2": "yes no yes",
    "bob-1": unicodedata.normalize("NFD", "ɛ́la été"),
}


def levenshtein(reference, hypothesis):
    """Wagner and Fischer 1974, as in the textbook."""
    row = list(range(len(hypothesis) + 1))
    for i, r in enumerate(reference, 1):
        previous, row = row, [i]
        for j, h in enumerate(hypothesis, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (r != h)))
    return row[-1]


WORDS = st.lists(st.sampled_from(["a", "b", "ab", "été", "{", "*"]), max_size=8)


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_errors_are_the_levenshtein_distance(pairs):
    scores = score(
        {f"u{n}": " ".join(ref) for n, (ref, _) in enumerate(pairs)},
        {f"u{n}": " ".join(hyp) for n, (_, hyp) in enumerate(pairs)},
    )
    for (ref, hyp), utterance in zip(pairs, scores.utterances, strict=True):
        assert utterance.words.total == levenshtein(ref, hyp)
        assert utterance.characters.total == levenshtein("".join(ref), "".join(hyp))
        assert utterance.words.insertions - utterance.words.deletions == len(hyp) - len(ref)
        assert [word for word, _ in utterance.alignment if word] == ref
        assert [word for _, word in utterance.alignment if word] == hyp
        assert sum(a != b for a, b in utterance.alignment) == utterance.words.total
    assert scores.words.total == sum(levenshtein(ref, hyp) for ref, hyp in pairs)
    assert scores.words.reference_length == sum(len(ref) for ref, _ in pairs)
    assert scores.wrong_utterances == sum(ref != hyp for ref, hyp in pairs)


def test_rates():
    scores = score(REFERENCES, HYPOTHESES)
    # cat->hat, -on, +big, and all of bob-2, in 6 + 3 + 2 + 1 words
    assert (scores.words.insertions, scores.words.deletions, scores.words.substitutions) == (
        1,
        2,
        1,
    )
    assert scores.wer == pytest.approx(100 * 4 / 12)
    # characters: c->h, "on" deleted, "big" inserted, "well" deleted; ɛ́ is two code points
    assert scores.characters.total == 1 + 2 + 3 + 4
    assert scores.characters.reference_length == 17 + 8 + 7 + 4
    assert scores.cer == pytest.approx(100 * 10 / 36)
    assert scores.ser == 50.0
    assert scores.missing == ("bob-2",)


def test_a_wrong_word_boundary_is_no_error_of_characters():
    scores = score({"u": "ice cream"}, {"u": "icecream"})
    assert (scores.words.total, scores.characters.total) == (2, 0)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "wer"), [("", "", 0.0), ("", "a", float("inf")), ("a", "", 100.0)]
)
def test_empty_texts(reference, hypothesis, wer):
    assert score({"u": reference}, {"u": hypothesis}).wer == wer


def test_no_utterances():
    assert (score({}, {}).wer, score({}, {}).ser) == (0.0, 0.0)


def test_a_hypothesis_without_reference():
    with pytest.raises(UserError, match="bob-9"):
        score(REFERENCES, HYPOTHESES | {"bob-9": "x"})


def test_report():
    assert report(score(REFERENCES, HYPOTHESES)) == (
        "%WER 33.33 [ 4 / 12, 1 ins, 2 del, 1 sub ]\n"
        "%CER 27.78 [ 10 / 36, 3 ins, 6 del, 1 sub ]\n"
        "%SER 50.00 [ 2 / 4 ]\n"
        "\n"
        "# 1 references have no hypothesis; their words count as deleted:\n"
        "bob-2\n"
        "\n"
        "# Utterances, most errors first: id errors/words text (reference->hypothesis)\n"
        "ann-1 3/6 the (cat->hat) sat (on->*) the (*->big) mat\n"
        "bob-2 1/1 (well->*)\n"
        "\n"
        "# Substitutions: count reference->hypothesis\n"
        "1 cat->hat\n"
        "\n"
        "# Deletions: count word\n"
        "1 on\n"
        "1 well\n"
        "\n"
        "# Insertions: count word\n"
        "1 big\n"
        "\n"
        "# Words: word errors correct in-reference in-hypothesis\n"
        "big 1 0 0 1\n"
        "cat 1 0 1 0\n"
        "hat 1 0 0 1\n"
        "on 1 0 1 0\n"
        "well 1 0 1 0\n"
        "mat 0 1 1 1\n"
        "no 0 1 1 1\n"
        "sat 0 1 1 1\n"
        "the 0 2 2 2\n"
        "yes 0 2 2 2\n"
        "été 0 1 1 1\n"
        "ɛ́la 0 1 1 1\n"
    )


def test_trn(tmp_path):
    write_scores(tmp_path, score(REFERENCES | {"c-1": ";; {a} (b) @"}, HYPOTHESES))
    assert (tmp_path / "ref.trn").read_text(encoding="utf-8") == (
        "the cat sat on the mat (ann-1)\nyes no yes (ann-2)\nɛ́la été (bob-1)\nwell (bob-2)\n"
        "；； ｛a｝ （b） ＠ (c-1)\n"
    )
    assert (tmp_path / "hyp.trn").read_text(encoding="utf-8") == (
        "the hat sat the big mat (ann-1)\nyes no yes (ann-2)\nɛ́la été (bob-1)\n (bob-2)\n (c-1)\n"
    )
    assert (tmp_path / "wer.txt").read_text(encoding="utf-8").startswith("%WER 50.00 [ 8 / 16, ")


def test_scores_are_read_again_with_their_ids(tmp_path):
    scores = score(REFERENCES | {"u(1)": "a"}, HYPOTHESES | {"u(1)": "b"})
    write_scores(tmp_path, scores)
    assert (tmp_path / "ref.trn").read_text(encoding="utf-8").endswith("\na (u（1）)\n")
    found = read_scores(tmp_path, ids=["u(1)"])
    assert [u.id for u in found.utterances] == [u.id for u in scores.utterances]
    # A missing hypothesis is an empty one there.
    assert (found.words, found.characters) == (scores.words, scores.characters)


@needs_sclite
def test_sclite_agrees(tmp_path):
    odd = {"c-1": "{ a / b } (x) @ ;; * The", "c-2": "a b", "c-3": "", "(c);4": "* x"}
    heard = {"c-1": "{ a / c } (x) @ ;; * the", "c-2": "", "c-3": "b", "(c);4": "x"}
    scores = score(REFERENCES | odd, HYPOTHESES | heard)
    write_scores(tmp_path, scores)
    found, ours = counts(tmp_path, "trn"), scores.words
    assert found["sentences"] == len(scores.utterances)
    assert found["wrong"] == scores.wrong_utterances
    assert (found["words"], found["errors"]) == (ours.reference_length, ours.total)
    assert (found["sub"], found["del"], found["ins"]) == (
        ours.substitutions,
        ours.deletions,
        ours.insertions,
    )
