"""Reports of models of chance on made-up sequences."""

import base64
import io
import math
import re
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from plateau.config import UserError
from plateau.data.sequences import SequenceSet
from plateau.data.strokes import to_strokes
from tests.job import run
from tests.page import Page
from tests.vrnn.untrained import HOSTILE, RATE, make
from vrnn import report
from vrnn.watch import kl_per_dim

MODELS = {
    "strokes": ("strokes", ["vrnn.cell=gru"]),
    "without latents": ("strokes", ["vrnn.kind=rnn"]),
    "images": ("images", []),
    "frames": ("frames", []),
}


class Made:
    """The page of a model, with what it is made of."""

    def __init__(self, kind: str, overrides: list[str]) -> None:
        self.kind = kind
        self.exp_dir, self.model = make(kind, overrides)
        if kind == "images":  # two dimensions of four say something
            layer = self.model.core.posterior.linear
            torch.nn.init.zeros_(layer.weight)
            layer.bias.data = torch.tensor([3.0, 2.0, 0, 0] + [math.log(math.e - 1)] * 4)
            self.exp_dir, self.model = make(kind, overrides, self.model.state_dict())
        run("vrnn/report.py", str(self.exp_dir), "--set", "test", "--num", "5")
        path = self.exp_dir / "report" / "index.html"
        self.size = path.stat().st_size
        self.text = path.read_text(encoding="utf-8")
        self.page = Page(self.text)
        folder = "data/frames/frames" if kind == "frames" else f"data/{kind}"
        self.real = SequenceSet(f"{folder}/test")

    def section(self, name: str) -> str:
        """The HTML below a heading."""
        return self.text.split(f"<h2>{name}</h2>")[1].split("<h2")[0]


@pytest.fixture(scope="module", params=MODELS)
def made(request, tmp_path_factory):
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("job"))
    yield Made(*MODELS[request.param])
    patch.undo()


def contents(html: str, kind: str) -> list[bytes]:
    """The files of a MIME type that are in a piece of a page."""
    found = re.findall(f'src="data:{kind};base64,([^"]*)"', html)
    return [base64.b64decode(each, validate=True) for each in found]


def paths(svg: str) -> list[tuple[str, np.ndarray]]:
    """Class and points (T_i, 2), y upwards, of the paths of a drawing."""
    found = re.findall(r'<path( class="given")? d="(.*?)"/>', svg)
    points = (np.array(re.findall(r"[-\d.]+", d), dtype=float).reshape(-1, 2) for _, d in found)
    return [(which, xy[:-1] * (1, -1)) for (which, _), xy in zip(found, points, strict=True)]


def test_it_is_one_file_that_asks_for_nothing_and_runs_only_its_own_script(made):
    assert made.size < 500_000
    sources = made.page.attributes("src")
    assert all(re.match("data:(image/png|audio/wav);base64,", source) for source in sources)
    links = [link for link in made.page.attributes("href") if link[0] != "#"]
    assert links == ["../decode_test_bound/sequences.tsv"]
    assert (made.exp_dir / "report" / unquote(links[0])).is_file()
    text = made.text.replace('xmlns="http://www.w3.org/2000/svg"', "").replace("http-equiv", "")
    assert "http" not in text and "url(" not in text and "@import" not in text
    tags = [tag for tag, _ in made.page.tags]
    assert tags.count("script") == 1
    assert not {"link", "iframe", "object"} & set(tags)
    assert not {name for _, attributes in made.page.tags for name in attributes if name[:2] == "on"}


def test_ids_and_texts_are_shown_as_they_are(made):
    assert f"test-0: {HOSTILE}" in made.page.text
    assert f"test-{HOSTILE}: ab" in made.page.text


def test_it_says_what_was_trained_on_what(made):
    millions = sum(parameter.numel() for parameter in made.model.parameters()) / 1e6
    assert f"{millions:.2f} million parameters" in made.page.text
    steps = {name: sum(SequenceSet(made.real.folder.parent / name).lengths) for name in ("train",)}
    assert f"train 4 sequences, {steps['train']} steps, by 2" in made.page.text
    assert "training 1 min 30 s for 1 epochs, 7 steps" in made.page.text
    assert "nats a step -1.500" not in made.page.text and "bound -1.500" in made.page.text
    assert f"data_dir data/{made.kind}" in made.page.text
    assert len(made.page.attributes("points", "polyline")) == 2  # train and dev


def test_the_real_sequences_are_the_sets(made):
    shown = made.section("Real and generated").split("<h3>")[1]
    if made.kind == "strokes":
        for number, svg in enumerate(re.findall("<svg.*?</svg>", shown)):
            expected = to_strokes(made.real.values(number).astype(float))
            found = paths(svg)
            assert len(found) == len(expected)
            for (_, points), wanted in zip(found, expected, strict=True):
                np.testing.assert_allclose(points, wanted, atol=0.0051)
    elif made.kind == "images":
        for number, png in enumerate(contents(shown, "image/png")):
            with Image.open(io.BytesIO(png)) as image:
                grey = 255 * (1 - made.real.values(number).reshape(3, 4))
                np.testing.assert_allclose(np.asarray(image), grey, atol=0.51)
    else:
        for number, wav in enumerate(contents(shown, "audio/wav")):
            samples, rate = soundfile.read(io.BytesIO(wav), dtype="int16")
            assert rate == RATE
            expected = 32767 * made.real.values(number).flatten()
            np.testing.assert_allclose(samples, expected, atol=0.51)
    assert number == 4


def test_generated_sequences_are_others(made):
    real, drawn = (
        set(re.findall("<svg.*?</svg>", each)) or set(contents(each, "image/png"))
        for each in made.section("Real and generated").split("<h3>")[1:]
    )
    assert len(real) == len(drawn) == 5 and not real & drawn


def test_reconstructions_are_those_of_the_model(made):
    shown = made.section("Reconstructions")
    if not made.model.core.latent_dim:
        assert "None: this model has no latents" in shown
        return
    again = shown.split("<h3>")[2]
    values = torch.from_numpy(made.real.values(2))[None]
    (expected,) = made.model.reconstructed(values, torch.tensor([values.shape[1]]))
    if made.kind == "strokes":
        svg = re.findall("<svg.*?</svg>", again)[2]
        wanted = np.concatenate(to_strokes(expected.double().numpy()))
        found = np.concatenate([points for _, points in paths(svg)])
        np.testing.assert_allclose(found, wanted, atol=0.0051)
    elif made.kind == "images":
        with Image.open(io.BytesIO(contents(again, "image/png")[2])) as image:
            grey = 255 * (1 - expected.reshape(3, 4))
            np.testing.assert_allclose(np.asarray(image), grey, atol=0.51)
    else:
        samples, _ = soundfile.read(io.BytesIO(contents(again, "audio/wav")[2]), dtype="int16")
        wanted = 32767 * expected.flatten().clamp(-1, 1)
        np.testing.assert_allclose(samples, wanted, atol=0.51)


def test_continuations_begin_with_what_was_given(made):
    if made.kind == "images":
        assert "Continuations" not in made.text
        return
    grids = made.section("Continuations").split('<div class="sequences')[1:]
    assert len(grids) == report.PRIMED
    for number, grid in enumerate(grids):
        whole, half = made.real.values(number), len(made.real.values(number)) // 2
        assert grid.count("<figure>") == 1 + report.CONTINUATIONS
        if made.kind == "frames":
            for wav in contents(grid, "audio/wav"):
                samples, _ = soundfile.read(io.BytesIO(wav), dtype="int16")
                assert len(samples) == whole.size
                given = 32767 * whole[:half].flatten()
                np.testing.assert_allclose(samples[: given.size], given, atol=0.51)
            continue
        svgs = [paths(svg) for svg in re.findall("<svg.*?</svg>", grid)]
        expected = to_strokes(whole[:half].astype(float))
        for svg in svgs:
            given = [points for which, points in svg if which]
            assert len(given) == len(expected)
            for points, wanted in zip(given, expected, strict=True):
                np.testing.assert_allclose(points, wanted, atol=0.0051)
        # The original goes on where it did: its points, but for those that two paths share.
        points = {tuple(xy) for _, each in svgs[0] for xy in each.round(2)}
        original = np.concatenate(to_strokes(whole.astype(float))).round(2)
        assert points == {tuple(xy) for xy in original}


def test_the_kl_of_each_dimension_is_that_of_the_model(made):
    if not made.model.core.latent_dim:
        assert "Latent dimensions" not in made.text
        return
    batch = [torch.from_numpy(each.values) for each in made.real]
    lengths = torch.tensor([len(each) for each in batch])
    padded = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
    with torch.no_grad():
        expected = kl_per_dim(made.model(padded, lengths)).sort(descending=True).values
    titles = re.findall(r"<rect .*?<title>(.*?)</title>", made.section("Latent dimensions"))
    shown = [float(title) for title in titles]
    assert shown == sorted(shown, reverse=True) and len(shown) == 4
    if made.kind == "images":  # elsewhere it depends on what was drawn before
        np.testing.assert_allclose(shown, expected, atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(shown, [4.5, 2.0, 0, 0], atol=1e-3, rtol=1e-3)  # mean² / 2
        assert "2 of 4 say more than 0.01 nats a step" in made.page.text


def test_a_traversal_has_those_that_are_used_each_held(made):
    shown = made.section("Latent traversal")
    if not made.model.core.latent_dim:
        assert "None: this model has no latents." in shown
        return
    if made.kind == "images":
        assert "dimensions that say the most, 2 of 2" in shown and "is at its mean" in shown
        latents = torch.tensor([[0.0, 2.0, 0.0, 0.0]])
        expected = made.model.core.output.mean(made.model.core.decode(latents)).detach()
        names, pngs = re.findall('alt="(.*?)"', shown), contents(shown, "image/png")
        assert names == [f"{dim} at {value:g}" for dim in (0, 1) for value in report.HELD]
        with Image.open(io.BytesIO(pngs[-1])) as image:
            grey = 255 * (1 - expected.reshape(3, 4))
            np.testing.assert_allclose(np.asarray(image), grey, atol=0.51)
        return
    assert "with the same random numbers" in shown
    dims = [int(dim) for dim in re.findall(r"<h3>dimension (\d)</h3>", shown)]
    assert len(dims) == 3
    largest = float(re.search(r"<title>(.*?)</title>", made.section("Latent dimensions"))[1])
    assert largest > 0.1
    names = re.findall("<figcaption>(.*?)</figcaption>", shown)
    assert names == [f"{dim} at {value}" for dim in dims for value in (-2, -1, 0, 1, 2)]
    expected = made.model.traversed(dims[1], [-1.0], 14, seed=1)[0]  # 14 is the usual length
    if made.kind == "strokes":
        svg = re.findall("<svg.*?</svg>", shown)[6]
        found = np.concatenate([points for _, points in paths(svg)])
        wanted = np.concatenate(to_strokes(expected.double().numpy()))
        np.testing.assert_allclose(found, wanted, atol=0.0051)
    else:
        samples, _ = soundfile.read(io.BytesIO(contents(shown, "audio/wav")[6]), dtype="int16")
        wanted = 32767 * expected.flatten().clamp(-1, 1)
        np.testing.assert_allclose(samples, wanted, atol=0.51)


def test_latents_that_say_nothing_are_not_traversed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ["vrnn.kind=vrnn_i", "vrnn.min_sigma=1"]
    _, model = make("strokes", asked)
    last = model.core.encoder[-1].linear  # mean 0, sigma 1 and almost nothing
    torch.nn.init.zeros_(last.weight)
    last.bias.data = torch.tensor([0.0] * 4 + [-20.0] * 4)
    exp_dir, _ = make("strokes", asked, model.state_dict())
    report.main(exp_dir)
    page = (exp_dir / "report" / "index.html").read_text(encoding="utf-8")
    section = page.split("<h2>Latent traversal</h2>")[1].split("<h2")[0]
    assert section.strip() == "<p>None: no dimension says more than 0.01 nats a step.</p>"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num": 0}, "--num 0: show 1 to 64 sequences"),
        ({"num": 65}, "--num 65: show 1 to 64 sequences"),
        ({"set": "nope"}, "--set nope: there are dev, test, train"),
    ],
)
def test_mistakes_are_named(made, arguments, message):
    with pytest.raises(UserError, match=message):
        report.main(made.exp_dir, **arguments)


def test_without_a_set_to_show_it_says_so(made):
    for name in ("dev", "test"):
        (made.real.folder.parent / name / "sequences.jsonl").rename(made.exp_dir / name)
    with pytest.raises(UserError, match="no set to decode"):
        report.main(made.exp_dir)
    for name in ("dev", "test"):
        (made.exp_dir / name).rename(made.real.folder.parent / name / "sequences.jsonl")
