import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("k2")

from plateau.config import Parser, UserError, add_arguments
from plateau.graphs.graph import arcs_of
from tests.graphs.enumeration import OTHER_PATTERNS, num_labels, sequences, unweighted, walk
from toy_peaky.options import Options


def alignments(options, num_frames):
    return walk(arcs_of(options.graph), num_frames)


@pytest.mark.parametrize(("topology", "pattern"), OTHER_PATTERNS.items(), ids=str)
def test_target_and_topology_make_the_graph(topology, pattern):
    name, target = topology
    options = Options(topology=name, target=target)
    assert options.num_labels == num_labels(pattern)
    assert alignments(options, 6) == unweighted(sequences(pattern, 6))


@pytest.mark.parametrize(
    ("options", "words", "blank"),
    [
        (dict(), [[0]], 1),
        (dict(classes=3), [[0, 1, 2]], 3),
        (dict(target="0 1 1"), [[0, 1, 1]], 2),
        (dict(target="1", classes=4), [[1]], 4),
        (dict(target=" 0 2|1 |  | 0"), [[0, 2], [1], [0]], 3),
        (dict(topology="4label_2words_sil"), [[0, 1, 2], [3]], 4),
        (dict(topology="1label", classes=2), [[0]], 2),
    ],
)
def test_words_and_blank(options, words, blank):
    options = Options(**options)
    options.check()
    assert options.words == words and options.blank == blank


def test_a_standard_topology_with_more_classes_has_its_blank_last():
    options = Options(topology="1label", classes=2)
    assert [labels for labels, _ in alignments(options, 2)] == [(0, 0), (0, 2), (2, 0)]


def test_an_fsa_tells_how_many_labels_there_are(tmp_path):
    path = tmp_path / "fsa.txt"
    path.write_text("0 1 3\n1 1 0\n1\n")
    assert Options(fsa=path).num_labels == 4
    assert Options(fsa=path, classes=5).num_labels == 6
    Options(fsa=path, classes=5).check()


@pytest.mark.parametrize(
    ("text", "labels"),
    [("1 1 0", [1, 1, 0]), ("1x2 0x3 2", [1, 1, 0, 0, 0, 2]), ("0x0 1", [1]), (" 10x1 ", [10])],
)
def test_input_is_labels_or_runs_of_them(text, labels):
    options = Options(input=text)
    assert options.input_labels == labels and options.num_frames == len(labels)


@settings(deadline=None, derandomize=True, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 30)), min_size=1))
def test_any_run_lengths(runs):
    text = " ".join(f"{label}x{times}" for label, times in runs)
    expected = [label for label, times in runs for _ in range(times)]
    assert Options(input=text).input_labels == expected


def test_frames_without_input():
    assert Options().num_frames == 100
    assert Options(frames=7).num_frames == 7


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", [0]), ("17", [17]), ("3:6", [3, 4, 5]), ("4294967295", [2**32 - 1])]
)
def test_seeds(text, seeds):
    assert list(Options(seeds=text).seed_list) == seeds


SAYS = [
    # What is asked for, what the message names, and a bit of what it says.
    (dict(topology="CTC"), "--topology 'CTC'", "ctc_without_inner_blank"),
    (dict(target="0 a"), "--target '0 a'", "'0 0 1'"),
    (dict(target="0 -1"), "--target '0 -1'", "'0 0 1'"),
    (dict(target="0 1.5"), "--target '0 1.5'", "'0 0 1'"),
    (dict(target=""), "--target", "empty"),
    (dict(target="|"), "--target", "empty"),
    (dict(target="", topology="forced_silence"), "--target", "empty"),
    (dict(target="0", topology="2label"), "--topology 2label", "leave out --target"),
    (dict(target="0 1", classes=1), "--classes", "label 1, which is blank"),
    (dict(target="0 2", classes=1), "--classes 1", "label 2 is not in 0 … 1"),
    (dict(topology="2label", classes=1), "--classes", "label 1, which is blank"),
    (dict(target="0 0 1", frames=3), "--frames", "3 frames; the shortest has 4"),
    (dict(target=" ".join(["0 1"] * 200)), "--frames", "100 frames; the shortest has 400"),
    (dict(target="99999999999"), "--classes", "too many"),
    (dict(classes=10**12), "--classes", "at most 100000000"),
    (dict(frames=10**12), "--frames", "at most 100000000"),
    (dict(seeds="0:4294967296"), "--seeds", "too many"),
    (dict(seeds="0:4294967297"), "--seeds", "0:200"),
    (dict(seeds="a"), "--seeds 'a'", "0:200"),
    (dict(seeds="5:5"), "--seeds '5:5'", "0:200"),
    (dict(seeds=":5"), "--seeds ':5'", "0:200"),
    (dict(seeds="1,2"), "--seeds '1,2'", "0:200"),
    (dict(seeds="-1"), "--seeds '-1'", "0:200"),
    (dict(input="0 x"), "--input: 'x'", "LABELxTIMES"),
    (dict(input="-1"), "--input: '-1'", "LABELxTIMES"),
    (dict(input="0x1x2"), "--input: '0x1x2'", "LABELxTIMES"),
    (dict(input=""), "--input", "empty"),
    (dict(input="3x0"), "--input", "empty"),
    (dict(input="0 2", classes=1), "--input", "label 2, not in 0 … 1"),
    (dict(input="0 1", frames=3), "--frames 3", "--input has 2"),
    (dict(model="linear"), "--model linear", "--input '"),
    (dict(model="model_free", input="0 1", classes=2), "--model model_free", "--classes 1"),
    (dict(model="bias", update_exact=True), "--update-exact", "--model mem"),
    (
        dict(scale_sm_by_prior=True, loss="sum_with_prior", prior_momentum=0.9),
        "--scale-sm-by-prior",
        "--prior-momentum",
    ),
    *(
        (
            dict([(name, 0)]),
            f"--{name.replace('_', '-')}",
            " is 0; it must be a whole number, at least 1",
        )
        for name in ("steps", "frames", "classes", "hidden_dim", "num_layers")
    ),
    *(
        (
            dict([(name, 1.0)]),
            f"--{name.replace('_', '-')}",
            " is 1.0; it must be at least 0 and below 1",
        )
        for name in ("logits_time_dropout", "prior_momentum")
    ),
    *(
        (
            dict([(name, value)]),
            f"--{name.replace('_', '-')}",
            f" is {value}; it must be at least 0",
        )
        for name in ("rnd_scale", "lr", "gradient_noise", "weight_noise", "focal_factor")
        for value in (-0.1, float("nan"))
    ),
]


@pytest.mark.parametrize(("options", "named", "said"), SAYS, ids=lambda value: str(value)[:60])
def test_a_mistake_is_a_line_that_names_the_option(options, named, said):
    with pytest.raises(UserError) as caught:
        Options(**options).check()
    message = str(caught.value)
    assert named in message and said in message
    assert "\n" not in message


def test_mistakes_with_an_fsa(tmp_path):
    path = tmp_path / "fsa.txt"
    path.write_text("0 1 3\n1 2 0\n2\n")
    for options, said in (
        (dict(target="0"), "--fsa brings its own target: leave out --target"),
        (dict(topology="hmm"), "leave out --topology"),
        (dict(classes=2), "label 3 is not in 0 … 2"),
        (dict(frames=3), "no alignment of the target has 3 frames; the shortest has 2"),
    ):
        with pytest.raises(UserError, match=said):
            Options(fsa=path, **options).check()
    path.write_text("0 1 one\n")
    with pytest.raises(UserError, match=r"fsa\.txt:1: "):
        Options(fsa=path).check()


FIELD = st.sampled_from(["0", "1", "2", "7", "x", "0x3", "-1", "", "|", "0:3", "9" * 20, "²"])
TEXT = st.lists(FIELD, max_size=4).map(" ".join) | st.text(max_size=5)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(["target", "input", "seeds"], TEXT)))
def test_no_text_gives_another_error(texts):
    options = Options(classes=2, **texts)
    try:
        options.check()
    except UserError as error:
        assert len(str(error)) < 300
    else:
        assert options.num_frames >= 1 and len(options.seed_list) >= 1


def test_every_option_is_a_documented_flag(capsys):
    parser = Parser(prog="toy")
    add_arguments(parser, Options)
    assert Options(**vars(parser.parse_args([]))) == Options()
    line = (
        "--model blstm --loss sum+max --frames 5 --no-bias --scale-sm-by-prior --lr 0.5 "
        "--blank-bias-init -1 --init uniform --seeds 0:9 --fsa a/b"
    )
    given = parser.parse_args(line.split())
    options = Options(**vars(given))
    assert (options.model, options.loss, options.bias) == ("blstm", "sum+max", False)
    assert (options.scale_sm_by_prior, options.blank_bias_init) == (True, -1.0)
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    for field in dataclasses.fields(Options):
        name = field.name.replace("_", "-")
        assert f"--{'no-' if field.default is True else ''}{name}" in text
    assert all(action.help for action in parser._actions)
