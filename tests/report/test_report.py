"""The report of an experiment on tones, whose words' times are known to the sample."""

import base64
import dataclasses
import io
import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import soundfile
import torch

pytest.importorskip("k2")

from conformer_ctc.options import Options
from conformer_ctc.train import build_model
from plateau.data.kaldi import Interval as Timed
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.data.loading import load_batch
from plateau.data.tokens import read_lang
from plateau.decoding.ctc import Hypothesis
from plateau.decoding.evaluate import Decoded, evaluate
from plateau.decoding.files import Interval, write_ctm
from plateau.decoding.scoring import read_scores
from plateau.io import write_json, write_text
from plateau.report import experiment as pages
from plateau.report.utterances import choose
from plateau.results import make_records
from plateau.training import checkpoint
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from tests.job import run, start
from tests.page import CHROMIUM, Page, bars_of, buttons
from tests.training.toy import RATE, speak

EXP_DIR = Path("exp/toy/conformer_ctc/x")
WORDS = {"a": "<script>throw`x`</script>", "b": "b\"&'", "c": "<i>"}
# What is said and what is heard: 1 of 2, 0 of 3, 2 of 2 and 1 of 2 words are wrong.
TEXTS = {"u-1": ("ab", "cb"), "u-2": ("abc", "abc"), "u-3": ("ca", "b"), "u-4<&>": ("bb", "b")}
SILENCE = 0.25  # seconds at the start of the recording


def words_of(letters: str) -> str:
    return " ".join(WORDS[letter] for letter in letters)


def times(letters: str) -> list[tuple[float, float]]:
    """The tones of `speak`, seconds from the start of the utterance."""
    return [(0.15 * i + 0.05, 0.15 * i + 0.15) for i in range(len(letters))]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder with an experiment: one recording of four utterances, and a model of chance."""
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("job"))
    random = np.random.default_rng(0)
    utterances, sounds, begin = [], [np.zeros(round(SILENCE * RATE))], SILENCE
    for name, (letters, _) in TEXTS.items():
        sounds.append(speak(letters, random))
        end = begin + len(sounds[-1]) / RATE
        timed = tuple(
            Timed(begin + first, last - first, WORDS[letter])
            for letter, (first, last) in zip(letters, times(letters), strict=True)
        )
        utterances.append(
            Utterance(name, "u", words_of(letters), "all.wav", "all", begin, end, words=timed)
        )
        begin = end
    soundfile.write("all.wav", np.concatenate(sounds), RATE, "PCM_16")
    for set_name in ("train", "test"):
        write_data_dir(Path("data/toy", set_name), utterances)
    start("conformer_ctc", EXP_DIR, ["tokens.kind=word", "features.perturb_speed=[]"])
    config = str(EXP_DIR / "config.yaml")
    run("local/make_manifests.py", "data/toy")
    run("local/compute_fbank.py", "data/toy", config, "--nj", "1")
    run("local/make_tokens.py", "data/toy", config)

    experiment = Experiment(EXP_DIR)
    options = experiment.options(Options)
    tokenizer = read_lang(lang_dir(options))
    torch.manual_seed(0)
    model = build_model(options)
    torch.nn.init.normal_(model.output.weight)
    state = {"model": model.state_dict(), "options": dataclasses.asdict(options)}
    experiment.final_model.parent.mkdir(parents=True)
    checkpoint.save(state, experiment.final_model)
    decoded = []
    for name, (said, heard) in TEXTS.items():
        tokens = tuple(tokenizer.encode(words_of(heard)))
        frames = tuple(range(1, 2 * len(tokens), 2))
        duration = 0.15 * len(said) + 0.05
        hypothesis = Hypothesis(tokens, frames, (-0.5,) * len(tokens), -1.0)
        decoded.append(Decoded(name, "u", duration, words_of(said), [hypothesis]))
    for method, wer in (("greedy", 50.0), ("lucky", 40.0)):
        decode_dir = experiment.decode_dir("test", method)
        evaluate(decode_dir, decoded, tokenizer, model.encoder.subsampling_factor)
        write_json(decode_dir / "metrics.json", make_records("test", method, wer=wer))
    epochs = [
        {"epoch": n, "step": n, "train_loss": 3 / n, "dev_loss": 4 / n, "train_seconds": n}
        for n in (1, 2, 3)
    ]
    write_text(EXP_DIR / "log/epochs.jsonl", "".join(json.dumps(e) + "\n" for e in epochs))
    run("local/results.py", str(EXP_DIR))
    yield Path.cwd()
    patch.undo()


def samples_of(job: Path, name: str, first: float, last: float) -> np.ndarray:
    """Samples of an utterance between two times, from the recording itself."""
    before = list(TEXTS)[: list(TEXTS).index(name)]
    offset = SILENCE + sum(0.15 * len(TEXTS[each][0]) + 0.05 for each in before)
    samples, rate = soundfile.read(job / "all.wav", dtype="int16")
    assert rate == RATE
    return samples[round((offset + first) * RATE) : round((offset + last) * RATE)]


@pytest.fixture(scope="module")
def text(job) -> str:
    run("local/report.py", str(EXP_DIR), "--utterances", "u-4<&>")
    path = job / EXP_DIR / "report/index.html"
    assert path.stat().st_size < 1_000_000
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text) -> Page:
    return Page(text)


def test_the_page_needs_no_other_file_and_runs_only_its_own_script(text, page):
    assert text.startswith("<!DOCTYPE html>\n<html lang=")
    sources = page.attributes("src")
    assert len(sources) == 6  # a sound and a spectrogram of each
    assert all(re.match("data:(image/png|audio/wav);base64,", source) for source in sources)
    links = [link for link in page.attributes("href") if link[:1] != "#"]
    folder = EXP_DIR / "report"
    assert links and all(link[:3] == "../" and (folder / unquote(link)).is_file() for link in links)
    assert '<a href="#options">' in text and "options" in page.attributes("id")
    assert (
        "url(" not in text and "@import" not in text and "http" not in text.replace("http-eq", "")
    )
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1
    assert not {"i", "link", "iframe", "object"} & set(tags)
    assert not {name for _, attributes in page.tags for name in attributes if name[:2] == "on"}


def test_it_shows_the_utterances_asked_for_with_their_texts(page):
    ids = re.findall(r"(u-\S+) ((?:named|worst|median|, )+); word errors: (\d) of (\d)", page.text)
    assert ids == [
        ("u-4<&>", "named", "1", "2"),
        ("u-3", "worst", "2", "2"),
        ("u-1", "worst, median", "1", "2"),
    ]
    assert f"reference {WORDS['c']} {WORDS['a']} hypothesis" in page.text
    assert "Of test, decoded by lucky." in page.text  # it has the lower WER


def test_tables_and_curves(page):
    rows = "set method WER % test greedy 50.00 test lucky 40.00*"  # no CER: nothing has one
    assert rows in page.text
    assert "* lowest WER of the set" in page.text
    curves = page.attributes("points", "polyline")
    assert [len(points.split()) for points in curves] == [3, 3]
    heights = [[float(xy.split(",")[1]) for xy in points.split()] for points in curves]
    train, dev = heights  # 3, 3/2, 1 and 4, 2, 4/3; down is larger
    assert train == sorted(train) and dev == sorted(dev)
    assert (train[0] - train[1]) / (dev[0] - dev[1]) == pytest.approx(3 / 4, abs=0.01)


def test_sounds_are_the_utterances_and_words_their_pieces(job, page):
    shown = ["u-4<&>", "u-3", "u-1"]
    sounds = page.attributes("src", "audio")
    for name, source in zip(shown, sounds, strict=True):
        content = base64.b64decode(source.split(",")[1], validate=True)
        samples, rate = soundfile.read(io.BytesIO(content), dtype="int16")
        assert rate == RATE
        letters = TEXTS[name][0]
        expected = samples_of(job, name, 0, 0.15 * len(letters) + 0.05)
        np.testing.assert_array_equal(samples, expected)
    true = [b for b in buttons(page) if ", true, " in b["title"]]
    expected = [
        (
            f"{WORDS[letter]}, true, {first:.3f} to {last:.3f} s",
            round(first * RATE),
            round(last * RATE),
        )
        for name in shown
        for letter, (first, last) in zip(TEXTS[name][0], times(TEXTS[name][0]), strict=True)
    ]
    assert [(b["title"], int(b["data-first"]), int(b["data-end"])) for b in true] == expected
    bars = {b["title"]: bar for b, bar in zip(buttons(page), bars_of(page), strict=True)}
    for b, (first, last) in zip(true, (t for n in shown for t in times(TEXTS[n][0])), strict=True):
        bar = bars[b["title"]]
        assert bar == pytest.approx((360 * first, 360 * (last - first)), abs=0.11)


def test_heard_words_are_where_the_decoder_says(page):
    heard = [b["title"] for b in buttons(page) if ", heard, " in b["title"]]
    # Frames 1 and 3 of an encoder with a frame each 40 ms, centred on 5 + 40 and 5 + 120 ms.
    spans = ["0.025 to 0.065 s", "0.105 to 0.145 s"]
    said = [(0, "b"), (0, "b"), (0, "c"), (1, "b")]  # in u-4, u-3, u-1
    assert heard == [f"{WORDS[letter]}, heard, {spans[i]}, confidence 0.61" for i, letter in said]


def test_posteriors_are_the_models(job, text):
    """Where the likeliest label has at least half, the drawing goes up to just there."""
    svg = re.findall(r'<svg class="posteriors".*?</svg>', text, re.DOTALL)
    assert len(svg) == 3
    options = Experiment(EXP_DIR).options(Options)
    model = build_model(options)
    model.load_state_dict(checkpoint.load(EXP_DIR / "checkpoints/averaged.safetensors")["model"])
    cuts = corpus_of(options).cuts("test")
    batch = load_batch(cuts.filter(lambda cut: cut.id == "u-3").to_eager(), options.features)
    with torch.no_grad():
        log_probs, _ = model.eval()(batch.features, batch.lengths)
    probs = log_probs[0].exp()  # (T', V)
    names = read_lang(lang_dir(options)).tokens
    drawn = Page(svg[1])
    titles = [title for title in drawn.texts if title.strip()]
    wanted = (probs.amax(0) >= 0.05).nonzero().flatten().tolist()
    assert [names[label] for label in wanted] == titles[: len(wanted)]
    of_labels = drawn.attributes("d", "path")[: len(wanted)]
    paths = dict(zip(titles[: len(wanted)], of_labels, strict=True))
    for label in wanted:
        tops = [float(y) for y in re.findall(r"V([\d.]+)H", paths[names[label]])]
        expected = [138 - 120 * p for p in probs[:, label].tolist() if p >= 0.05]
        assert tops == pytest.approx(expected, abs=0.06)


def test_long_sound_is_cut_off(job, text, monkeypatch):
    """What a page holds is bounded; words after the cut are not shown."""
    monkeypatch.setattr(pages, "MAX_SAMPLES", round(0.18 * RATE))
    run("local/report.py", str(EXP_DIR), "--worst", "0", "--utterances", "u-2", "--median", "0")
    path = job / EXP_DIR / "report/index.html"
    short = Page(path.read_text(encoding="utf-8"))
    assert "0.50 s, the first 0.18 s are shown" in short.text
    true = [b for b in buttons(short) if ", true, " in b["title"]]
    assert [(int(b["data-first"]), int(b["data-end"])) for b in true] == [(400, 1200)]
    path.write_text(text, encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--utterances", "u-9"], "no utterance u-9 among the 4 that are decoded"),
        (["--method", "beam"], "no decoding of beam; there are test by greedy, test by lucky"),
        (["--set", "dev"], "no decoding of dev; there are test by"),
        (["--worst", "-1"], "choose 0 to 20 utterances"),
        (["--worst", "20"], "choose 0 to 20 utterances"),
    ],
)
def test_mistakes_are_named(job, arguments, message):
    with pytest.raises(AssertionError, match=message):
        run("local/report.py", str(EXP_DIR), *arguments)


def test_what_is_missing_can_be_made_as_the_message_says(job):
    results = EXP_DIR / "results.json"
    before = results.read_text()
    results.unlink()
    with pytest.raises(AssertionError) as error:
        run("local/report.py", str(EXP_DIR))
    command = re.search(r"make it with python (.*)", str(error.value))[1]
    run(*shlex.split(command))
    assert results.read_text() == before


def test_a_snippet_is_the_words_samples(job):
    for word, (first, last) in enumerate(times("abc"), start=1):
        run("local/listen.py", str(EXP_DIR), "u-2", "--word", str(word), "--out", "word.wav")
        samples, rate = soundfile.read("word.wav", dtype="int16")
        assert rate == RATE
        np.testing.assert_array_equal(samples, samples_of(job, "u-2", first, last))
    run("local/listen.py", str(EXP_DIR), "u-1")
    whole, _ = soundfile.read(EXP_DIR / "report/u-1_word-0.wav", dtype="int16")
    np.testing.assert_array_equal(whole, samples_of(job, "u-1", 0, 0.35))
    for name, word, message in (
        ("u-2", "4", "u-2 has 3 true words"),
        ("u-2", "-1", "u-2 has 3 true words"),
        ("u-9", "1", "no set has an utterance u-9"),
    ):
        with pytest.raises(AssertionError, match=message):
            run("local/listen.py", str(EXP_DIR), name, "--word", word)


def test_a_window_is_its_samples_and_its_words(job, capsys):
    """From the start of its first word to the end of the utterance, which is shorter than it."""
    masked = set()
    for number, (name, (letters, _)) in enumerate(TEXTS.items(), start=1):
        run("local/listen.py", str(EXP_DIR), "test", "--window", str(number))
        samples, rate = soundfile.read(EXP_DIR / f"report/{name}:1.wav", dtype="int16")
        assert rate == RATE
        end = 0.15 * len(letters) + 0.05
        np.testing.assert_array_equal(samples, samples_of(job, name, 0.05, end))
        said = capsys.readouterr().out.splitlines()[-1].split(" s: ")[1]
        assert re.sub(r"[][]", "", said) == words_of(letters)
        masked |= {word.startswith("[") for word in said.split()}
    assert masked == {True, False}
    run("local/listen.py", str(EXP_DIR), "test", "--window", "1", "--out", "window.wav")
    assert Path("window.wav").exists()
    with pytest.raises(AssertionError, match=r"--window 9: test has \d windows"):
        run("local/listen.py", str(EXP_DIR), "test", "--window", "9")


def test_without_true_times_a_snippet_is_the_aligned_word(job, monkeypatch):
    monkeypatch.setattr("plateau.alignment.measures.true_times", lambda corpus, set_name: {})
    arguments = ("local/listen.py", str(EXP_DIR), "u-1", "--out", "word.wav", "--word")
    with pytest.raises(
        AssertionError,
        match=r"make it with ./run.sh --corpus toy .* --exp \S+",
    ):
        run(*arguments, "2")
    ctm = EXP_DIR / "align_test/words.ctm"
    # The last words end after the audio, as they could in the encoder's last frame.
    entries = [("A", 0.1, 0.05), ("B", 0.2, 0.4), ("C", 0.6, 0.1)]
    intervals = [Interval(begin, begin + length, word) for word, begin, length in entries]
    write_ctm(ctm, {"u-1": intervals})
    for word, first, last in ((1, 0.1, 0.15), (2, 0.2, 0.35)):
        run(*arguments, str(word))
        samples, _ = soundfile.read("word.wav", dtype="int16")
        np.testing.assert_array_equal(samples, samples_of(job, "u-1", first, last))
    with pytest.raises(AssertionError, match=r"at 0.600 s there is no audio"):
        run(*arguments, "3")
    shutil.rmtree(ctm.parent)


def test_a_method_without_a_word_error_rate_is_shown_all_the_same(job):
    """As where the reference has no words, and the hypotheses have."""
    for method in ("greedy", "lucky"):
        metrics = EXP_DIR / f"decode_test_{method}" / "metrics.json"
        before = metrics.read_text()
        records = make_records("test", method, wer=float("inf"), rtf_batch_1=0.01)
        write_json(metrics, records)
        run("local/report.py", str(EXP_DIR), "--method", method)
        metrics.write_text(before)
    assert "decoded by lucky" in (job / EXP_DIR / "report/index.html").read_text(encoding="utf-8")


def test_aligned_words_show_their_confidence(job):
    ctm = EXP_DIR / "align_test/words.ctm"
    write_ctm(ctm, {"u-1": [Interval(0.1, 0.15, "A", 0.25), Interval(0.2, 0.3, "B")]})
    run("local/report.py", str(EXP_DIR), "--utterances", "u-1")
    shown = (job / EXP_DIR / "report/index.html").read_text(encoding="utf-8")
    assert 'title="A, aligned, 0.100 to 0.150 s, confidence 0.25"' in shown
    assert 'title="B, aligned, 0.200 to 0.300 s"' in shown
    shutil.rmtree(ctm.parent)


def test_worst_and_median_are_chosen_by_word_error_rate(job):
    utterances = read_scores(EXP_DIR / "decode_test_greedy").utterances
    assert [(u.id, u.words.total) for u in utterances] == [
        ("u-1", 1), ("u-2", 0), ("u-3", 2), ("u-4<&>", 1)
    ]  # fmt: skip
    # Worst first: u-3 (100 %), u-1 and u-4 (50 %), u-2 (0 %).
    assert choose(utterances, 1, 1) == {"u-3": ["worst"], "u-1": ["median"]}
    assert choose(utterances, 2, 2) == {
        "u-3": ["worst"], "u-1": ["worst", "median"], "u-4<&>": ["median"]
    }  # fmt: skip
    assert choose(utterances, 0, 0, ["u-2", "u-2"]) == {"u-2": ["named"]}
    assert list(choose(utterances, 9, 9)) == ["u-3", "u-1", "u-4<&>", "u-2"]
    assert choose(utterances[:3], 0, 1) == {"u-1": ["median"]}


def test_a_textgrid_is_linked_by_the_name_of_its_file(job):
    folder = EXP_DIR / "align_test"
    folder.mkdir()
    (folder / "u-4<&>.TextGrid").write_text("x")
    (folder / "words.ctm").write_text("u-1 1 0.1 0.1 A\n")
    (folder / "doubtful.txt").write_text("")
    run("local/report.py", str(EXP_DIR), "--utterances", "u-4<&>")
    shown = Page((job / EXP_DIR / "report/index.html").read_text(encoding="utf-8"))
    links = set(shown.attributes("href"))
    assert links > {"../align_test/u-4%3C%26%3E.TextGrid", "../align_test/words.ctm"}
    assert "../align_test/doubtful.txt" not in links  # nothing is in it
    shutil.rmtree(folder)


def test_the_page_says_how_the_model_was_made(page):
    options = Experiment(EXP_DIR).options(Options)
    millions = sum(p.numel() for p in build_model(options).parameters()) / 1e6
    assert f"model {millions:.2f} million parameters, encoder conformer" in page.text
    assert "training 3.0 s for 3 epochs, 3 steps" in page.text
    assert "train 1.5 s of speech, 4 utterances" in page.text  # 9 tones of 0.15 s, 4 pauses
    assert "option value default data_dir data/toy" in page.text
    assert "WER % word error rate" in page.text and "below 0" not in page.text


def test_options_of_decoding_are_those_that_decoded(job):
    """All others are the model's."""
    config = EXP_DIR / "config.yaml"
    before = config.read_text()
    config.write_text(before.replace("beam: 8", "beam: 3").replace("kind: word", "kind: char"))
    run("local/report.py", str(EXP_DIR))
    config.write_text(before)
    shown = Page((job / EXP_DIR / "report/index.html").read_text(encoding="utf-8"))
    assert "decoding.beam 3 8" in shown.text and "tokens.kind word bpe" in shown.text


RECORD = """<script>
window.found = {errors: [], played: []};
for (const event of ["error", "unhandledrejection", "securitypolicyviolation"]) {
  addEventListener(event, (e) => found.errors.push([event, e.message, e.blockedURI]), true);
}
const begin = AudioBufferSourceNode.prototype.start;
AudioBufferSourceNode.prototype.start = function (...when) {
  const samples = Array.from(this.buffer.getChannelData(0), (x) => x * 32768);
  found.played.push([this.buffer.sampleRate, when, samples]);
  begin.apply(this, when);
};
</script>
"""
CLICK = """<script>
found.playing = [];
for (const word of document.querySelectorAll("button")) {
  word.click();
  found.playing.push(word.classList.contains("playing"));
}
found.widths = [document.documentElement.scrollWidth, innerWidth];
const boxes = (within, what) => [...document.querySelectorAll(within)].map((each) =>
  [...each.querySelectorAll(what)].map((one) => {
    const { left, top, right, bottom } = one.getBoundingClientRect();
    return [left, top, right, bottom];
  }));
const result = document.createElement("pre");
result.id = "found";
result.textContent = JSON.stringify(found);
document.body.append(result);
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_in_a_browser_a_click_plays_exactly_the_word(job, text, page):
    recorded = text.replace("<head>\n", "<head>\n" + RECORD).replace("</body>", CLICK + "</body>")
    Path("recorded.html").write_text(recorded, encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=500,900",
        f"--user-data-dir={job}/browser", "--autoplay-policy=no-user-gesture-required",
        "--dump-dom", (job / "recorded.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    result = re.search('<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    found = json.loads("".join(Page(result[0]).texts))
    assert found["errors"] == []
    assert found["playing"] and all(found["playing"])
    assert found["widths"][0] <= found["widths"][1]  # a phone needs not scroll the page sideways
    spans = [
        (name, float(first), float(last))
        for name, part in zip(("u-4<&>", "u-3", "u-1"), text.split("<article>")[1:], strict=True)
        for first, last in re.findall(r' title="[^"]*, ([\d.]+) to ([\d.]+) s[",]', part)
    ]
    assert len(found["played"]) == len(spans) == 10
    for (rate, when, samples), span in zip(found["played"], spans, strict=True):
        assert (rate, when) == (RATE, [])
        np.testing.assert_array_equal(samples, samples_of(job, *span))
