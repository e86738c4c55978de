import gzip
import itertools
import math
import random
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.ngram import estimate, read_arpa
from plateau.text import RESERVED

CORPORA = st.lists(st.lists(st.sampled_from("abcd"), max_size=5), min_size=1, max_size=12)


def generated(count, seed=0):
    """Sentences in which words depend on the two before, so that longer n-grams know more."""
    rng = random.Random(seed)
    sentences = []
    for _ in range(count):
        words = [rng.randrange(12), rng.randrange(12)]
        while len(words) < 9 and rng.random() < 0.9:
            words.append((words[-1] + 2 * words[-2] + rng.choice([0, 0, 0, 1, 5])) % 12)
        sentences.append([f"w{word}" for word in words])
    return sentences


def parse_arpa(path):
    """Log10 probability and back-off of each n-gram, and the sizes that the header says."""
    lines = iter(path.read_text(encoding="utf-8").splitlines())
    assert next(lines) == "\\data\\"
    sizes = [int(line.split("=")[1]) for line in itertools.takewhile(bool, lines)]
    ngrams = {}
    for n, size in enumerate(sizes, start=1):
        assert next(lines) == f"\\{n}-grams:"
        block = [line.split() for line in itertools.takewhile(bool, lines)]
        assert len(block) == size
        for p, *words in block:
            backoff = float(words.pop()) if len(words) > n else 0.0
            ngrams[tuple(words)] = (float(p), backoff)
    assert list(lines) == ["\\end\\"]
    return ngrams, sizes


def arpa_prob(ngrams, words):
    """What the ARPA format says of the last word after the others."""
    if words in ngrams:
        return 10 ** ngrams[words][0]
    if len(words) == 1:
        return 0.0
    return 10 ** ngrams.get(words[:-1], (0, 0.0))[1] * arpa_prob(ngrams, words[1:])


@given(CORPORA, st.integers(1, 5))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_every_history_has_probabilities_that_sum_to_one(tmp_path_factory, corpus, order):
    path = tmp_path_factory.mktemp("arpa") / "lm.arpa"
    model = estimate(corpus, order)
    model.write_arpa(path)
    ngrams, sizes = parse_arpa(path)
    assert sizes == model.sizes
    assert len(sizes) == min(order, 2 + max(map(len, corpus)))
    words = {word for sentence in corpus for word in sentence}
    histories = {ngram[:-1] for ngram in ngrams}
    for n in range(3):  # seen or not, with a word that was never seen
        histories |= set(itertools.product([*sorted(words), "unseen"], repeat=n))
        histories |= {("<s>", *h) for h in itertools.product(sorted(words), repeat=n)}
    for history in histories:
        history = history[max(0, len(history) + 1 - len(sizes)) :]
        probs = {w: arpa_prob(ngrams, (*history, w)) for w in [*words, "</s>"]}
        assert sum(probs.values()) == pytest.approx(1, abs=1e-6)
        assert min(probs.values()) > 0
        for word, prob in probs.items():
            assert model.prob(word, history) == pytest.approx(prob, rel=1e-6)
    # Whatever has a back-off can be reached: the n-gram without its last word is there.
    assert all(ngram[:-1] in ngrams for ngram in ngrams if len(ngram) > 1)


def test_bigrams_by_hand():
    """Nothing has a count of 4: discounts 1/2, 1, 3/2."""
    model = estimate([["a", "b"], ["a", "b"], ["a", "c"]], 2)
    # a, b and c have one left neighbour each, the end has two. Half of 5 goes to 4 words evenly.
    a = b = c = Fraction(1, 2) / 5 + Fraction(1, 2) / 4
    end = Fraction(1) / 5 + Fraction(1, 2) / 4
    expected = {
        ("", "a"): a,
        ("", "</s>"): end,
        ("<s>", "a"): Fraction(3, 2) / 3 + Fraction(1, 2) * a,
        ("<s>", "c"): Fraction(1, 2) * c,
        ("a", "b"): Fraction(1) / 3 + Fraction(1, 2) * b,
        ("a", "c"): Fraction(1, 2) / 3 + Fraction(1, 2) * c,
        ("a", "</s>"): Fraction(1, 2) * end,
        ("b", "</s>"): Fraction(1) / 2 + Fraction(1, 2) * end,
        ("c", "</s>"): Fraction(1, 2) + Fraction(1, 2) * end,
        ("unseen", "c"): c,
        ("a", "unseen"): 0,
        ("a", "<s>"): 0,
    }
    for (history, word), prob in expected.items():
        assert model.prob(word, history.split()) == pytest.approx(float(prob), rel=1e-12)


def test_estimated_discounts_by_hand():
    """6 words once, 2 twice, 1 three times, 1 four times: y = 0.6, discounts 0.6, 1.1, 0.6."""
    model = estimate([list("abcddeefffgggghi")], 1)
    # 6 · 0.6 + 2 · 1.1 + 0.6 + 0.6 = 7 counts of 17 are for 10 words evenly.
    for word, left in [("a", 0.4), ("</s>", 0.4), ("d", 0.9), ("f", 2.4), ("g", 3.4)]:
        assert model.prob(word, []) == pytest.approx((left + 0.7) / 17, rel=1e-12)


def test_negative_discounts_are_replaced():
    """6 words once, 1 twice, 4 three times, 1 four times: -7 would be taken from 2."""
    model = estimate([list("abcdeffggghhhiiijjjkkkk")], 1)
    assert model.prob("f", []) == pytest.approx((1 + (6 * 0.5 + 1 + 5 * 1.5) / 12) / 24, rel=1e-12)


def by_definition(corpus, order):
    """p(word | history) as Chen & Goodman define it, each count looked up in the text, exactly."""
    texts = [("<s>", *sentence, "</s>") for sentence in corpus]
    vocabulary = {word for text in texts for word in text} - {"<s>"}

    @cache
    def places(ngram):
        n = len(ngram)
        return [(t, i) for t in texts for i in range(len(t) - n + 1) if t[i : i + n] == ngram]

    def adjusted(ngram, longest):
        if ngram == ("<s>",):
            return 0
        if len(ngram) == longest or ngram[0] == "<s>":
            return len(places(ngram))
        return len({text[i - 1] for text, i in places(ngram)})

    def discounts(n):
        ngrams = {t[i : i + n] for t in texts for i in range(len(t) - n + 1)}
        m = Counter(adjusted(ngram, order) for ngram in ngrams)
        if not (m[1] and m[2] and m[3] and m[4]):
            return [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2)]
        y = Fraction(m[1], m[1] + 2 * m[2])
        d = [0, 1 - 2 * y * m[2] / m[1], 2 - 3 * y * m[3] / m[2], 3 - 4 * y * m[4] / m[3]]
        return d if min(d[1:]) > 0 else [Fraction(0), Fraction(1, 2), Fraction(1), Fraction(3, 2)]

    taken = {n: discounts(n) for n in range(1, order + 1)}

    def prob(word, history):
        lower = prob(word, history[1:]) if history else Fraction(1, len(vocabulary))
        counts = {v: adjusted((*history, v), order) for v in vocabulary}
        total = sum(counts.values())
        if total == 0:
            return lower
        d = taken[len(history) + 1]
        gamma = sum(d[min(count, 3)] for count in counts.values()) / total
        return (counts[word] - d[min(counts[word], 3)]) / total + gamma * lower

    return prob, vocabulary


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_it_is_kneser_ney_by_definition(order):
    corpus = generated(20)  # bigrams and trigrams have discounts of their own
    prob, vocabulary = by_definition(corpus, order)
    model = estimate(corpus, order)
    histories = {
        ("<s>", *sentence)[: i + 1][max(0, i + 2 - order) :] if order > 1 else ()
        for sentence in corpus[:4]
        for i in range(len(sentence) + 1)
    }
    for history in histories:
        for word in vocabulary:
            expected = float(prob(word, history))
            assert model.prob(word, history) == pytest.approx(expected, rel=1e-9)


def test_longer_ngrams_know_the_training_text_better():
    corpus = generated(300)
    perplexities = [estimate(corpus, order).perplexity(corpus)[0] for order in (1, 2, 3, 4, 5)]
    assert perplexities == sorted(perplexities, reverse=True)
    assert perplexities[2] < 0.7 * perplexities[0]
    unseen, _ = estimate(corpus, 3).perplexity(generated(100, seed=1))
    assert perplexities[2] < unseen < 0.7 * perplexities[0]


def test_perplexity_leaves_unseen_words_out():
    model = estimate([["a"], ["b", "b"]], 2)
    log_probs = model.log_probs(["a", "new", "b"])
    assert log_probs[1] == -math.inf
    # After a word that was never seen, the next is as likely as without history.
    assert log_probs[2] == pytest.approx(math.log(model.prob("b", [])))
    known = [log_probs[0], *log_probs[2:]]
    assert model.perplexity([["a", "new", "b"]]) == (
        pytest.approx(math.exp(-sum(known) / 3)),
        1,
    )


def kaldilm_scores(arpa, vocabulary, sentences, symbols):
    """Natural log weight of sentences in kaldilm's graph, by back-off only where a word lacks."""
    names = ["<eps>", *vocabulary, "#0", "<s>", "</s>"]
    symbols.write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)), encoding="utf-8")
    command = [sys.executable, "-m", "kaldilm", "--disambig-symbol=#0", str(arpa)]
    command.append(f"--read-symbol-table={symbols}")
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in text.splitlines() if line]
    arcs = {}  # by state and word; the end of a sentence is the word None
    for row in rows:
        if len(row) <= 2:
            key, target, weight = (row[0], None), None, row[1:]
        else:
            key, target, weight = (row[0], names[int(row[2])]), row[1], row[4:]
        assert key not in arcs
        arcs[key] = (target, -float(*weight) if weight else 0.0)

    scores = []
    for sentence in sentences:
        state, score = rows[0][0], 0.0
        for word in (*sentence, None):
            while (state, word) not in arcs:
                state, weight = arcs[state, "#0"]
                score += weight
            state, weight = arcs[state, word]
            score += weight
        scores.append(score)
    return scores


TINY = [[["yes"]], [["a"], ["b"]], [["a", "a", "a", "é"], []]]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("corpus", [generated(60), *TINY])
def test_kaldilm_gives_sentences_the_same_probability(tmp_path, corpus, order):
    pytest.importorskip("kaldilm")
    model = estimate(corpus, order)
    model.write_arpa(tmp_path / "lm.arpa")
    vocabulary = sorted({word for sentence in corpus for word in sentence})
    rng = random.Random(order)
    sentences = [*corpus[:10], [], *(rng.choices(vocabulary, k=n) for n in range(1, 8))]
    scores = kaldilm_scores(tmp_path / "lm.arpa", vocabulary, sentences, tmp_path / "words.txt")
    for sentence, score in zip(sentences, scores, strict=True):
        assert score == pytest.approx(sum(model.log_probs(sentence)), abs=1e-4)


def test_decoding_graph_gives_sentences_the_same_probability(tmp_path):
    """As bigrams are interpolated, no back-off is likelier than the bigram itself.

    Longer ones can be, in a graph with back-off arcs: the words after have a shorter history.
    """
    k2 = pytest.importorskip("k2")
    from plateau.graphs.transducer_decoding import lg_graph

    corpus = generated(30)
    vocabulary = sorted({word for sentence in corpus for word in sentence})
    model = estimate(corpus, 2)
    model.write_arpa(tmp_path / "lm.arpa")
    tokens = {word: [1 + i % 3, 4 + i // 3] for i, word in enumerate(vocabulary)}
    graph = lg_graph({**tokens, "unheard": [1]}, tmp_path / "lm.arpa", 8)
    for sentence in [*corpus[:3], ["w1", "w1", "w7", "w1"]]:
        spelled = k2.linear_fsa([token for word in sentence for token in tokens[word]])
        paths = k2.connect(k2.intersect(graph, spelled))
        score = k2.create_fsa_vec([paths]).get_tot_scores(True, log_semiring=False).item()
        assert score == pytest.approx(sum(model.log_probs(sentence)), abs=1e-4)


def test_same_sentences_same_file(tmp_path):
    corpus = generated(20)
    for name, sentences in [("a", corpus), ("b", corpus[::-1])]:
        estimate(sentences, 3).write_arpa(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_user_errors():
    for order in (0, 6):
        with pytest.raises(UserError, match=f"is {order}; give 1 to 5"):
            estimate([["a"]], order)
    with pytest.raises(UserError, match="no sentences"):
        estimate([], 2)
    for word in (*RESERVED, "#0"):
        with pytest.raises(UserError, match=f"'{word}'"):
            estimate([["a", word]], 2)


GOOD = """made by hand

\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-99 <s>\t-0.3
-0.5\t</s>
-0.4\tcaf\u0065\u0301 -0.2
-0.6 <unk>

\\2-grams:
-0.2\t<s> caf\u0065\u0301
-0.3\tcaf\u0065\u0301 </s>

\\end\\
"""


def test_arpa_files_of_other_tools_are_read(tmp_path):
    expected = unicodedata.normalize("NFC", GOOD).splitlines()[2:]
    for name, content in {
        "lf": GOOD.encode(),
        "crlf": GOOD.replace("\n", "\r\n").encode(),
        "bom": b"\xef\xbb\xbf" + GOOD.encode(),
        "more after the end": (GOOD + "bye\n").encode(),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert read_arpa(tmp_path / name) == (expected, {"caf\u00e9"})


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "\\DATA\\", r"no line \\data\\; give a language model in ARPA"),
        ("\\end\\\n", "", r"no line \\end\\, so the end is missing"),
        ("1=4", "1=5", "4 1-grams, and its header says 5; make the file again"),
        ("2=2", "2=1", "2 2-grams, and its header says 1"),
        ("\\2-grams:", "", r":14: '-0.2\t<s> café' is not an n-gram of 1 words"),
        ("\\1-grams:", "", r":8: '-99 <s>\t-0.3' is not of the form 'ngram N=COUNT'"),
        ("-0.5\t", "x\t", r":9: 'x\t</s>' is not an n-gram of 1 words"),
        ("-0.5\t", "nan\t", ":9: 'nan\t</s>' is not"),
        ("<unk>", "<eps>", ":11: '<eps>' cannot be a word"),
        ("<unk>", "#0", ":11: '#0' cannot be a word"),
        ("-0.5\t</s>", "-0.5\tb", "</s> is not among the 1-grams"),
    ],
)
def test_mistakes_in_arpa_files_are_named(tmp_path, old, new, message):
    path = tmp_path / "lm.arpa"
    path.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(UserError, match=re.escape(f"{path}") + ".*" + message):
        read_arpa(path)


def test_files_that_are_no_text_are_named(tmp_path):
    for content, message in [
        (gzip.compress(GOOD.encode()), "compressed by gzip; unpack it: gunzip < FILE > NEW"),
        (GOOD.encode("utf-16"), "UTF-16, not UTF-8"),
        (GOOD.encode("latin-1", "replace").replace(b"?", b"\xe9"), "not UTF-8: line 10"),
    ]:
        (tmp_path / "x").write_bytes(content)
        with pytest.raises(UserError, match=message):
            read_arpa(tmp_path / "x")
    with pytest.raises(UserError, match="none: no such file"):
        read_arpa(tmp_path / "none")
