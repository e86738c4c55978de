"""Samples of models of chance, read back from their files."""

import re
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from plateau.config import UserError
from plateau.data.sequences import SequenceSet
from plateau.data.strokes import to_strokes
from plateau.training.checkpoint import set_seed
from tests.job import run
from tests.vrnn.untrained import HOSTILE, RATE, make
from vrnn import sample


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder and model of an experiment of each kind."""
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("job"))
    yield {kind: make(kind) for kind in ("strokes", "images", "frames")}
    patch.undo()


def strokes_in(svg: Path) -> list[np.ndarray]:
    """Points (T_i, 2) of each path, y upwards; the last stands there twice, so that dots show."""
    root = ET.fromstring(svg.read_text(encoding="utf-8"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    found = []
    for path in root:
        numbers = np.array(re.findall(r"[-\d.]+", path.attrib["d"]), dtype=float).reshape(-1, 2)
        assert (numbers >= (left, top)).all() and (numbers <= (left + width, top + height)).all()
        np.testing.assert_array_equal(numbers[-1], numbers[-2])
        found.append(numbers[:-1] * (1, -1))
    return found


def assert_drawn(svg: Path, values: torch.Tensor) -> None:
    expected = to_strokes(values.double().numpy())
    found = strokes_in(svg)
    assert len(found) == len(expected)
    for points, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(points, wanted, atol=0.0051)


def test_drawings_are_what_the_model_draws_and_each_seed_has_its_own(models):
    exp_dir, model = models["strokes"]
    folder = exp_dir / "samples" / "drawn"
    for seed in (1, 2):
        arguments = ("--num", "3", "--steps", "20", "--seed", str(seed))
        run("vrnn/sample.py", str(exp_dir), *arguments)
        set_seed(seed)
        for number, values in enumerate(model.sample(3, 20), start=1):
            assert values.shape == (20, 3)
            assert_drawn(folder / f"{number}.svg", values)
    assert len(list(folder.glob("*.svg"))) == 3
    with Image.open(folder / "samples.png") as picture:
        assert np.asarray(picture.convert("L")).min() < 128  # something is drawn


def test_without_steps_they_are_as_long_as_usual(models):
    exp_dir, _ = models["strokes"]
    assert sample.usual_length(SequenceSet(Path("data/strokes/train"))) == 14  # of 12 to 15
    run("vrnn/sample.py", str(exp_dir), "--num", "1")
    found = strokes_in(exp_dir / "samples/drawn/1.svg")
    assert sum(map(len, found)) == 15  # and where it starts


def test_what_is_given_comes_first_unchanged(models):
    exp_dir, model = models["strokes"]
    sets = [SequenceSet(Path("data/strokes", name)) for name in ("train", "test")]
    given = sample.find(sets, "test-3").values
    assert len(given) == 15
    for drawn in sample.draw(model, sets, 2, 6, "test-3"):
        assert drawn.shape == (7 + 6, 3)
        np.testing.assert_array_equal(drawn[:7], given[:7])
    run("vrnn/sample.py", str(exp_dir), "--prime", "test-3", "--num", "2", "--steps", "6")
    points = [np.concatenate(strokes_in(exp_dir / f"samples/after_test-3/{n}.svg")) for n in (1, 2)]
    whole = np.concatenate(to_strokes(given))
    for drawn in points:
        assert len(drawn) == 1 + 13
        np.testing.assert_allclose(drawn[:8], whole[:8], atol=0.0051)
    assert not np.allclose(points[0][8:], points[1][8:])


def test_a_prime_counts(models):
    """What comes after it depends on it."""
    _, model = models["strokes"]
    drawn = []
    for given in (torch.zeros(5, 3), torch.full((5, 3), 3.0)):
        set_seed(1)
        drawn.append(model.continued(given, 1, 4)[0, 5:])
    assert not torch.equal(*drawn)


def test_an_interpolation_goes_from_one_image_again_to_the_other(models):
    exp_dir, model = models["images"]
    sets = [SequenceSet(Path("data/images/test"))]
    between = sample.interpolate(model, sets, "test-0,test-2", 5)
    values = torch.from_numpy(np.stack([sets[0].values(0), sets[0].values(2)]))
    with torch.no_grad():
        mean, _ = model.core.posterior(model.core.encoder(values.flatten(0, 1)))
        middle = torch.sigmoid(model.core.output.parameters_of(model.core.decoder(mean.mean(0))))
    ends = model.reconstructed(values, torch.tensor([1, 1]))
    torch.testing.assert_close(torch.stack([between[0], between[-1]]), ends)
    torch.testing.assert_close(between[2][0], middle)
    run("vrnn/sample.py", str(exp_dir), "--interpolation", "test-0,test-2")
    assert (exp_dir / "samples/interpolation/samples.png").stat().st_size > 1000


def test_a_traversal_goes_from_minus_two_to_two(models):
    exp_dir, model = models["strokes"]
    arguments = ("--traversal", "3", "--num", "3", "--steps", "20", "--seed", "2")
    run("vrnn/sample.py", str(exp_dir), *arguments)
    folder = exp_dir / "samples" / "dimension_3"
    for number, values in enumerate(model.traversed(3, [-2.0, 0.0, 2.0], 20, seed=2), start=1):
        assert_drawn(folder / f"{number}.svg", values)
    assert len(list(folder.glob("*.svg"))) == 3


def test_a_model_without_latents_has_nothing_to_traverse(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exp_dir, _ = make("strokes", ["vrnn.kind=rnn"])
    with pytest.raises(UserError, match="--traversal: this model has no latents"):
        sample.main(exp_dir, traversal="0")


def test_sound_is_a_file_at_the_corpus_rate(models):
    exp_dir, model = models["frames"]
    run("vrnn/sample.py", str(exp_dir), "--num", "2", "--steps", "7")
    set_seed(1)
    for number, values in enumerate(model.sample(2, 7), start=1):
        samples, rate = soundfile.read(exp_dir / f"samples/drawn/{number}.wav", dtype="int16")
        assert (rate, len(samples)) == (RATE, 7 * 10)
        expected = 32767 * values.flatten().clamp(-1, 1).numpy()
        np.testing.assert_allclose(samples, expected, atol=0.51)


def test_an_id_becomes_a_folder_within_the_experiments(models):
    exp_dir, _ = models["strokes"]
    before = set(exp_dir.glob("samples/*"))  # of other tests
    run("vrnn/sample.py", str(exp_dir), "--prime", f"test-{HOSTILE}", "--num", "1")
    (made,) = set(exp_dir.glob("samples/*")) - before
    assert (made / "1.svg").is_file()


def test_the_commands_of_the_docstring_work(models):
    commands = re.findall(r"^python (.*?)(?:  +.*)?$", sample.__doc__, re.MULTILINE)
    assert len(commands) == 4
    for command in commands:
        corpus = "images" if "digits" in command else "strokes"
        command = re.sub(r"exp/\w+/vrnn/default", str(models[corpus][0]), command)
        command = command.replace("ID,ID", "train-0,dev-1").replace("ID", "dev-0")
        run(*shlex.split(command))


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("strokes", {"prime": "x-9"}, "no sequence has the id x-9 in data/strokes/.*; one is "),
        ("images", {"interpolation": "test-0,x-9"}, "no sequence has the id x-9 in data/images/"),
        ("images", {"interpolation": "test-0"}, "--interpolation test-0: give two ids, with a"),
        ("images", {"interpolation": "a,b,c"}, "--interpolation a,b,c: give two ids, with a"),
        ("images", {"prime": "test-0"}, "--prime: this model is no recurrent one: try --inter"),
        ("strokes", {"interpolation": "test-0,test-1"}, "--interpolation: this model is recurrent"),
        ("images", {"prime": "a", "interpolation": "a,b"}, "--prime, --interpolation, --traversal"),
        (
            "strokes",
            {"prime": "a", "traversal": "1"},
            "--prime, --interpolation, --traversal: give",
        ),
        ("strokes", {"traversal": "4"}, "--traversal 4: the latent dimensions are 0 to 3"),
        ("images", {"traversal": "-1"}, "--traversal -1: the latent dimensions are 0 to 3"),
        ("strokes", {"num": 0}, "--num 0 --steps 0: draw 1 to 1000"),
        ("strokes", {"steps": -1}, "--num 8 --steps -1: draw 1 to 1000"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(models, kind, arguments, message):
    exp_dir, _ = models[kind]
    before = sorted((exp_dir / "samples").rglob("*"))
    with pytest.raises(UserError, match=message) as error:
        sample.main(exp_dir, **arguments)
    assert "\n" not in str(error.value)
    assert sorted((exp_dir / "samples").rglob("*")) == before
