import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from plateau import config
from plateau.config import UserError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int = 1
    names: tuple[str, ...] = ("a",)
    scale: float | None = None


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = Inner()
    corpus: dict[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0


def test_overrides_win_over_values():
    values = {"inner": {"size": 2, "names": ["b", "c"]}, "corpus": {"hours": 1}}
    options = config.resolve(Outer, values, ["inner.size=3", "seed=4", "corpus.hours=2"])
    assert options == Outer(Inner(size=3, names=("b", "c")), {"hours": 2}, seed=4)


def test_saved_options_are_read_back_whole_or_by_section(tmp_path: Path):
    options = Outer(Inner(size=7, scale=0.5), {"seed": 3}, seed=9)
    config.save(options, tmp_path / "config.yaml")
    assert config.load(Outer, tmp_path / "config.yaml") == options
    assert config.load(Inner, tmp_path / "config.yaml", section="inner") == options.inner


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("inner.sise=3", "there is no field 'inner.sise'; the experiment's config.yaml lists all"),
        ("inner.size=big", "inner.size is big; it must be a whole number"),
        ("seed", "'seed' is not of the form field.name=value"),
        ("", "'' is not of the form field.name=value"),
        ("=5", "there is no field ''"),
        (" seed=5", "there is no field ' seed'"),
        ("--seed=5", "there is no field '--seed'"),
        ("inner..size=5", "there is no field 'inner..size'"),
        ("inner=5", "inner is 5; it must be a section with fields"),
        ("inner=", "inner is empty; it must be a section with fields"),
        ("seed=", "seed is empty; it must be a whole number"),
        ("seed=1=2", "seed is 1=2; it must be a whole number"),
        ("seed=*x", r"seed=\*x: an alias"),
        ("corpus={x: &x [1], y: *x}", "an alias"),
        ("corpus=!!python/name:os.system ''", "corpus is !!python/name:os.system ''; it must be"),
    ],
)
def test_mistakes_name_the_field(override: str, said: str):
    with pytest.raises(UserError, match=said):
        config.resolve(Outer, {}, [override])


def test_overrides_are_text_and_the_last_of_two_counts(tmp_path, monkeypatch):
    """Scripts put theirs before those of their user. What looks like code is text."""
    monkeypatch.chdir(tmp_path)
    code = "!!python/object/apply:os.mkdir ['evil']"
    options = config.resolve(Outer, {}, ["seed=1", "seed=2", f"corpus.x={code}", "corpus.y={"])
    assert options == Outer(corpus={"x": code, "y": "{"}, seed=2)
    assert not Path("evil").exists()


def test_mistakes_in_a_file_name_the_file(tmp_path: Path):
    path = tmp_path / "conf.yaml"
    with pytest.raises(UserError, match="no such file"):
        config.load(Outer, path)
    path.write_text("inner: {siz: 3}")
    with pytest.raises(UserError, match=r"conf\.yaml.*siz"):
        config.load(Outer, path)
    path.write_text("inner: [")
    with pytest.raises(UserError, match=r"conf\.yaml: not YAML"):
        config.load(Outer, path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("inner: 5", "inner is 5; it must be a section with fields"),
        ("inner: [1]", r"inner is \[1\]; it must be a section with fields"),
        ("corpus: 5", "corpus is 5; it must be a section with fields"),
        ("- 1", "list at the top; it must be sections with fields"),
        ("5", "int at the top; it must be sections with fields"),
        ("seed: 1\nseed: 2", "line 2: 'seed' is there twice"),
        ("inner:\n  size: 1\n  size: 2", "line 3: 'size' is there twice"),
        ("inner: {size: x}", "inner.size is x; it must be a whole number"),
        ("inner: {names: a}", r"inner.names is a; it must be a list, as in \[1, 2\]"),
        ("corpus: {x: &x [1],\n  y: *x}", "line 2: an alias"),
        ("corpus: " + "[" * 3000 + "]" * 3000, "line 1: brackets within brackets, 50 deep"),
        ("seed: !!python/object/apply:os.mkdir ['evil']", "not YAML: could not determine"),
        ("seed: !!python/name:os.system ''", "not YAML: could not determine"),
        ("inner: {class_path: program.Evil}", "inner has no field class_path"),
        ("class_path: program.Evil", "what is given has no field class_path"),
    ],
)
def test_what_is_no_configuration_is_refused(tmp_path, monkeypatch, text, said):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    (tmp_path / "program.py").write_text("import os\nos.mkdir('evil')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"conf\.yaml: {said}"):
        config.load(Outer, path)
    assert not (tmp_path / "evil").exists()


def test_a_configuration_is_text_in_a_file(tmp_path):
    path = tmp_path / "conf.yaml"
    path.write_bytes("seed: 1".encode("utf-16"))
    with pytest.raises(UserError, match="UTF-16"):
        config.load(Outer, path)
    with pytest.raises(UserError, match="Is a directory"):
        config.load(Outer, tmp_path)
    path.write_text("inner: # all is commented out\n# size: 2\n")
    assert config.load(Outer, path) == Outer()
    path.write_text("inner: 5")
    with pytest.raises(UserError, match="inner is 5"):
        config.load(Inner, path, section="inner")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["inner", "size", "seed", "corpus", "x"]), inner, max_size=3
        )
    ),
    max_leaves=8,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(VALUES | st.dictionaries(st.sampled_from(["inner", "seed", "corpus"]), VALUES))
def test_any_configuration_gives_options_or_a_user_error(tmp_path_factory, values):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(yaml.safe_dump(values))
    try:
        options = config.load(Outer, path)
    except UserError as error:
        assert str(path) in str(error)
    else:
        assert isinstance(options, Outer)


def test_a_user_error_is_a_line_and_a_status(tmp_path: Path):
    script = tmp_path / "script.py"
    script.write_text(
        "from plateau.config import UserError, cli\n"
        "def main(number: int):\n"
        "    raise UserError(f'no {number}; take 2')\n"
        "cli(main)\n"
    )
    for argument, status, said in (("1", 1, "no 1; take 2"), ("x", 2, "number")):
        command = [sys.executable, str(script), argument]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        assert run.returncode == status
        assert said in run.stderr
        assert "Traceback" not in run.stderr
        assert "script.py: " in run.stderr


def build(
    inputs: list[Path],
    kind: Literal["full sum", "best"] = "best",
    rate: float = 0.5,
    start: float | None = None,
    noise_level: int = 0,
    layer_bias: bool = True,
    verbose: bool = False,
) -> None:
    """Build it.

    Args:
        inputs: files, 100 % of them.
        kind: of sum.
        rate: of learning.
        start: where to start.
        noise_level: how loud.
        layer_bias: layers have none.
        verbose: say more.
    """


@dataclasses.dataclass(frozen=True)
class Built:
    """The same from a dataclass.

    Args:
        kind: of sum.
        layer_bias: layers have none.
    """

    kind: Literal["full sum", "best"] = "best"
    layer_bias: bool = True


def parse(line: list[str], function=build, only_given: bool = False) -> dict[str, Any]:
    parser = config.Parser(prog="build")
    config.add_arguments(parser, function, only_given)
    return vars(parser.parse_args(line))


def test_arguments_are_those_of_the_signature():
    assert parse(["a", "b/c"]) == {
        "inputs": [Path("a"), Path("b/c")],
        "kind": "best",
        "rate": 0.5,
        "start": None,
        "noise_level": 0,
        "layer_bias": True,
        "verbose": False,
    }
    line = "a --kind best --rate 2 --start -1.5 --noise-level 3 --no-layer-bias --verbose"
    given = parse([*line.split(), "--kind", "full sum"])
    assert given["kind"] == "full sum"
    assert (given["rate"], given["start"], given["noise_level"]) == (2.0, -1.5, 3)
    assert (given["layer_bias"], given["verbose"]) == (False, True)
    assert parse(["--no-layer-bias"], Built) == {"kind": "best", "layer_bias": False}


def test_only_what_is_given():
    assert parse(["a"], only_given=True) == {"inputs": [Path("a")]}
    assert parse([], Built, only_given=True) == {}
    assert parse(["--layer-bias"], Built, only_given=True) == {"layer_bias": True}
    line = ["a", "--rate", "0.5", "--no-layer-bias"]
    given = {"inputs": [Path("a")], "rate": 0.5, "layer_bias": False}
    assert parse(line, only_given=True) == given
    # With changes of other values, what is not given stays.
    changes = parse(["--kind", "full sum"], Built, only_given=True)
    assert dataclasses.replace(Built(layer_bias=False), **changes) == Built("full sum", False)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ([], "inputs"),
        (["a", "--kind", "sum"], "'full sum', 'best'"),
        (["a", "--rate", "fast"], "--rate: invalid float value: 'fast'"),
        (["a", "--rate"], "--rate: expected one argument"),
        (["a", "--verbos"], "--verbos"),  # no abbreviations
        (["a", "--nois", "3"], "--nois"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(line, said, capsys):
    with pytest.raises(SystemExit) as exited:
        parse(line)
    assert exited.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("build: ") and printed.err.count("\n") == 1
    assert said in printed.err and "--help" in printed.err


def test_help_is_the_docstring(capsys):
    with pytest.raises(SystemExit) as exited:
        parse(["--help"])
    assert exited.value.code == 0
    said = " ".join(capsys.readouterr().out.split())
    for text in ("files, 100 % of them.", "--no-layer-bias layers have none.", "{full sum,best}"):
        assert text in said


def test_user_errors_become_a_line_on_stderr_and_status_1(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["/some/where/tool.py"])
    with pytest.raises(SystemExit) as exited, config.user_errors():
        raise UserError("a: not there; make it")
    assert exited.value.code == "tool.py: a: not there; make it"  # which Python prints, status 1
    with pytest.raises(KeyError), config.user_errors():
        raise KeyError("not the user's mistake")


def test_a_full_disk_is_a_line(tmp_path):
    """By the device that is always full."""
    script = "from plateau.config import user_errors\nwith user_errors():\n"
    script += "    open('/dev/full', 'wb', 0).write(b'x')\n"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert done.stderr.endswith("No space left on device\n")
