"""Where things lie on the page: nothing on top of another, nothing too small, nothing cut."""

import json
import re
import subprocess
from itertools import combinations

import numpy as np
import pytest
import torch

from plateau.decoding.files import Interval
from plateau.decoding.scoring import score
from plateau.io import write_json, write_text
from plateau.report import experiment as pages
from plateau.report.facts import About, Option
from plateau.report.utterances import Shown
from plateau.results import make_records
from tests.page import CHROMIUM, Page, bars_of, buttons, overlap, style

RATE = 8000


def test_short_words_can_be_clicked_and_their_bars_are_true():
    said = {"a": 0.02, "i": 0.05, "W" * 60: 0.01, "漢字": 0.0, "e": 9.0}
    words = [Interval(0.05 * i, 0.05 * i + said[word], word) for i, word in enumerate(said)]
    page = Page("\n".join(pages._track("heard", words, 8000, 2400)))  # 0.3 s, 108 pixels
    found = [style(button) for button in buttons(page)]
    assert all(button["width"] >= 24 and button["height"] >= 24 for button in found)
    assert all(button["left"] >= 0 for button in found)
    taken = [(b["left"], b["top"], b["left"] + b["width"], b["top"] + b["height"]) for b in found]
    assert not [pair for pair in combinations(taken, 2) if overlap(*pair)]
    (track,) = (style(a) for tag, a in page.tags if tag == "div")
    assert max(bottom for *_, bottom in taken) <= track["height"]
    bars = [(0, 7.2), (18, 18), (36, 3.6), (54, 0), (72, 36)]  # of the last, what there is of it
    for bar, expected in zip(bars_of(page), bars, strict=True):
        assert bar == pytest.approx(expected, abs=0.11)
    tops = [style(a)["top"] for tag, a in page.tags if tag == "span" and a["class"] == "extent"]
    assert {top + button["top"] for top, button in zip(tops, found, strict=True)} == {1}


def test_a_track_without_words_is_nothing():
    assert list(pages._track("heard", [], RATE, 2400)) == []


def shown(id: str, seconds: float, letters: str) -> Shown:
    """An utterance of letters that are heard 15 ms one after another, and so overlap as drawn."""
    said = [Interval(0.1 + 0.015 * i, 0.115 + 0.015 * i, c) for i, c in enumerate(letters)]
    text = {id: " ".join(letters)}
    return Shown(
        scored=score(text, text).utterances[0],
        reasons=["named"],
        samples=np.zeros(round(seconds * RATE), np.int16),
        sampling_rate=RATE,
        features=torch.randn(round(seconds * 100), 20),
        log_probs=torch.randn(max(1, round(seconds * 25)), 4).log_softmax(1),
        subsampling_factor=4,
        tokens=said,
        words={"true": [], "heard": said},
    )


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    exp_dir = tmp_path_factory.mktemp("corpus") / "conformer_ctc" / "x"
    write_text(exp_dir / "config.yaml", "data_dir: data/corpus\n")
    write_json(exp_dir / "results.json", make_records("test", "greedy", wer=1.0, cer=2.0))
    epochs = [{"epoch": n, "step": n, "train_loss": -0.5 * n, "dev_loss": 3.0} for n in (1, 2, 3)]
    options = [Option(f"a.{'very_' * 9}long.name", "[1, 2, 3]", ""), Option("b", "x" * 40, "y")]
    about = About({"model": "of " + "m" * 60}, options, "The loss may be below 0.", epochs)
    utterances = [
        shown("long", 3.0, "aiWMWiiiWWMaWWMWWMWW"),
        shown("i" * 80, 0.2, "a"),
        shown("<b>short</b>", 0.01, ""),
    ]
    return pages.write_report(
        exp_dir, about, utterances, "test", "greedy", ["<blk>", "a", "i", "W"]
    )


def test_the_loss_is_explained_and_tracks_without_words_are_left_out(path):
    page = Page(path.read_text(encoding="utf-8"))
    assert "loss, nats per token. The loss may be below 0." in page.text
    assert page.text.count("heard: the hypothesis") == 2
    assert "true words" not in page.text
    assert "spectrogram: 20 mel bins, 20 Hz (below) to 3600 Hz" in page.text


MEASURE = """<script>
addEventListener("load", () => {
  const boxes = (within, what) => [...document.querySelectorAll(within)].map((each) =>
    [...each.querySelectorAll(what)].map((one) => {
      const { left, top, right, bottom } = one.getBoundingClientRect();
      return [left, top, right, bottom];
    }));
  const scrolling = [...document.querySelectorAll("article .scroll")].map((box) =>
    [box.scrollWidth - box.clientWidth, getComputedStyle(box, "::after").content.includes("›")]);
  const result = document.createElement("pre");
  result.id = "found";
  result.textContent = JSON.stringify({
    width: document.querySelector("main").scrollWidth,
    buttons: boxes(".words", "button"), tokens: boxes(".posteriors", "text"),
    keys: boxes(".chart", "text.key"), plots: boxes(".chart", "polyline"), scrolling,
  });
  document.body.append(result);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [390, 1400])
def test_in_a_browser_nothing_lies_on_another_and_what_goes_on_has_an_arrow(path, tmp_path, width):
    """Chromium has no windows below 500 pixels: the page's content is made narrow instead."""
    text = path.read_text(encoding="utf-8")
    narrow = f"<style>main {{ width: {width}px; max-width: 60rem; }}</style></head>"
    text = text.replace("</head>", narrow).replace("</body>", MEASURE + "</body>")
    measured = tmp_path / "measured.html"
    measured.write_text(text, encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,900",
        f"--user-data-dir={tmp_path}/browser", "--dump-dom", measured.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    result = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    found = json.loads("".join(Page(result[0]).texts))
    assert found["width"] <= min(width, 960)  # nothing sticks out but within boxes that scroll
    scrolling = found["scrolling"]  # texts and timelines
    assert [arrow for _, arrow in scrolling] == [rest > 24 for rest, _ in scrolling]
    assert [arrow for _, arrow in scrolling] == [width == 390, True, False, False, False]
    for kind in ("buttons", "tokens", "keys"):
        assert any(len(boxes) > 1 for boxes in found[kind])
        for boxes in found[kind]:
            assert not [pair for pair in combinations(boxes, 2) if overlap(*pair)]
    for boxes in found["buttons"]:
        assert all(x1 - x0 >= 24 and y1 - y0 >= 24 for x0, y0, x1, y1 in boxes)
    for keys, plots in zip(found["keys"], found["plots"], strict=True):
        assert not [key for key in keys for plot in plots if overlap(key, plot)]
