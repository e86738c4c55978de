import itertools
import math

import pytest

pytest.importorskip("k2")

from plateau.config import UserError
from plateau.graphs.transducer_decoding import lg_graph, trivial_graph

# Words that begin others ("a", "ab"), that sound the same ("ab", "AB"), and one that the language
# model does not know.
LEXICON = {"a": [1], "ab": [1, 2], "AB": [1, 2], "c": [3], "cab": [3, 1, 2], "unheard": [2]}
UNIGRAMS = {"<s>": -99, "</s>": -0.5, "a": -0.9, "ab": -0.6, "AB": -1.2, "c": -0.8, "cab": -1.5}
UNIGRAMS["nowhere"] = -0.7  # not in the lexicon
BACKOFFS = {"<s>": -0.3, "a": -0.2, "ab": -0.1, "c": -0.4}
BIGRAMS = {
    ("<s>", "a"): -0.2,
    ("a", "ab"): -0.3,
    ("ab", "</s>"): -0.1,
    ("c", "c"): -0.6,
    ("nowhere", "a"): -0.1,
}


def write_arpa(path):
    lines = ["\\data\\", f"ngram 1={len(UNIGRAMS)}", f"ngram 2={len(BIGRAMS)}", "", "\\1-grams:"]
    lines += [f"{p}\t{w}\t{BACKOFFS.get(w, 0)}" for w, p in UNIGRAMS.items()]
    lines += ["", "\\2-grams:", *(f"{p}\t{a} {b}" for (a, b), p in BIGRAMS.items())]
    path.write_text("\n".join([*lines, "", "\\end\\", ""]), encoding="utf-8")
    return path


def ways_to_say(words):
    """Log weights of a sentence, with each choice of bigram or back-off that the model has."""
    choices = []
    for history, word in itertools.pairwise(["<s>", *words, "</s>"]):
        ways = [BACKOFFS.get(history, 0) + UNIGRAMS[word]]
        if (history, word) in BIGRAMS:
            ways.append(BIGRAMS[history, word])
        choices.append(ways)
    return [math.log(10) * sum(way) for way in itertools.product(*choices)]


def expected(max_tokens):
    """Of each token sequence, log weights of all ways to say it."""
    known = [word for word in LEXICON if word in UNIGRAMS]
    ways = {}
    for count in range(max_tokens + 1):
        for words in itertools.product(known, repeat=count):
            tokens = tuple(token for word in words for token in LEXICON[word])
            if len(tokens) <= max_tokens:
                ways.setdefault(tokens, []).extend(ways_to_say(words))
    return ways


def paths(graph, words, max_tokens):
    """Tokens, log weight and words of all paths of a graph; ``words`` has those of each arc."""
    arcs = graph.arcs.values()[:, :3].tolist()
    leaving = {}
    for (source, target, label), score, said in zip(
        arcs, graph.scores.tolist(), words, strict=True
    ):
        leaving.setdefault(source, []).append((target, label, score, said))
    found = []
    todo = [(0, (), 0.0, ())]
    while todo:
        state, tokens, total, heard = todo.pop()
        for target, label, score, said in leaving.get(state, []):
            after = (*heard, *(word for word in said if word > 0))
            if label == -1:
                found.append((tokens, total + score, after))
            elif len(tokens) < max_tokens:
                todo.append((target, (*tokens, label), total + score, after))
    return found


@pytest.mark.parametrize("lm_scale", [1.0, 0.4])
def test_lg_has_the_sentences_of_the_model_with_their_weights(tmp_path, lm_scale):
    graph = lg_graph(LEXICON, write_arpa(tmp_path / "lm.arpa"), 4, lm_scale)
    assert 0 not in graph.labels.tolist()
    ways = expected(4)
    found = {}
    names = list(LEXICON)
    for tokens, weight, words in paths(graph, graph.aux_labels.tolist(), 4):
        found.setdefault(tokens, []).append(weight)
        assert tokens == tuple(t for word in words for t in LEXICON[names[word - 1]])
        closest = min(
            ways_to_say([names[w - 1] for w in words]), key=lambda x: abs(x * lm_scale - weight)
        )
        assert weight == pytest.approx(closest * lm_scale, abs=1e-4)
    assert set(found) == set(ways)
    for tokens, weights in found.items():
        assert max(weights) == pytest.approx(lm_scale * max(ways[tokens]), abs=1e-4)
        assert len(weights) <= len(ways[tokens])


def test_trivial_graph_accepts_all_labels():
    graph = trivial_graph(4)
    found = sorted((tokens, weight) for tokens, weight, _ in paths(graph, [[]] * graph.num_arcs, 2))
    sequences = [s for n in range(3) for s in itertools.product([1, 2, 3], repeat=n)]
    assert found == sorted((s, 0.0) for s in sequences)


def test_user_errors(tmp_path):
    arpa = write_arpa(tmp_path / "lm.arpa")
    broken = tmp_path / "broken.arpa"
    broken.write_text("no language model\n")
    for lexicon, path, what in [
        (LEXICON, tmp_path / "none.arpa", "no such file"),
        (LEXICON, broken, r"no line \\data\\"),
        ({"a": []}, arpa, "at least one"),
        ({"a": [4]}, arpa, "from 1 to 3"),
        ({"#0": [1]}, arpa, "cannot be a word"),
        ({"b c": [1]}, arpa, "cannot be a word"),
    ]:
        with pytest.raises(UserError, match=what):
            lg_graph(lexicon, path, 4)


def arpa_of(words):
    lines = ["\\data\\", f"ngram 1={len(words) + 2}", "", "\\1-grams:", "-99 <s>", "-1 </s>"]
    return "\n".join([*lines, *(f"-0.3 {word}" for word in words), "", "\\end\\", ""])


def test_words_that_the_model_lacks_are_said(tmp_path, capsys):
    arpa = tmp_path / "lm.arpa"
    arpa.write_text(arpa_of(["HELLO", "yes"]))
    with pytest.raises(
        UserError,
        match=r"lm\.arpa has none of the 2 words of the lexicon: .*lm\.arpa has HELLO, the "
        "lexicon hello; write words the same in both",
    ):
        lg_graph({"hello": [1], "b": [2]}, arpa, 4)
    lg_graph({"hello": [1], "yes": [2]}, arpa, 4)
    said = capsys.readouterr().out
    assert said == (
        f"note: {arpa} lacks 1 of the 2 words of the lexicon, e.g. hello, which is HELLO there\n"
    )


def test_files_of_other_editors_give_the_same_graph(tmp_path):
    text = arpa_of(["é", "b"])
    (tmp_path / "lf").write_text(text, encoding="utf-8")
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    graphs = [lg_graph({"é": [1, 2], "b": [3]}, tmp_path / name, 4) for name in ("lf", "bom")]
    assert str(graphs[0]) == str(graphs[1])


def test_what_kaldilm_says_is_told(tmp_path):
    arpa = tmp_path / "lm.arpa"
    trigram = "\n\\3-grams:\n-0.1 b b b\n\n\\end\\"  # and no 2-grams
    text = arpa_of(["b"]).replace("\\end\\", trigram).replace("1=3", "1=3\nngram 3=1")
    arpa.write_text(text)
    with pytest.raises(
        UserError, match=r"lm\.arpa: kaldilm cannot read it as an ARPA file: .*3-gr"
    ):
        lg_graph({"b": [1]}, arpa, 4)


def test_a_graph_that_is_deterministic_already(tmp_path):
    arpa = tmp_path / "lm.arpa"
    arpa.write_text(arpa_of(["a", "b"]))
    graph = lg_graph({"a": [1], "b": [2]}, arpa, 4)
    found = paths(graph, graph.aux_labels.tolist(), 1)
    weights = {(1,): -1.3, (2,): -1.3, (): -1.0}
    assert {tokens: words for tokens, _, words in found} == {(1,): (1,), (2,): (2,), (): ()}
    for tokens, weight, _ in found:
        assert weight == pytest.approx(math.log(10) * weights[tokens], abs=1e-4)
