"""Stage 8: write report/index.html, which shows windows of words and lets one listen to them."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from masked_window.decode import METHOD
from masked_window.options import Options
from masked_window.train import build_model
from plateau.alignment.windows import windows_of
from plateau.config import UserError, cli
from plateau.data.windows import Windows
from plateau.decoding.files import read_trn
from plateau.models.window import WindowModel
from plateau.report import facts
from plateau.report.audio import load_samples, wav
from plateau.report.page import data_uri
from plateau.report.sections import write_page
from plateau.training.experiment import Experiment, corpus_of
from plateau.training.recipe import load_final

FILES = {
    "wer.txt": "all errors",
    "hyp.trn": "what was found in each window",
    "ref.trn": "its words",
}
CURVES = {  # of log/epochs.jsonl: name, and unit
    "loss": ("loss", "nats per word that is to be found"),
    "right": ("words that are found", "share of those that are masked"),
    "cross_entropy": ("cross entropy of masked words", "nats per word"),
}
STYLE = """
.window { margin: 1rem 0; } .window .wrong { color: var(--no); font-weight: 600; }
.window td { padding: .1rem .6rem .1rem 0; border: 0; }
"""
MOST = 50  # windows of a page
WRONG = ' class="wrong"'


def show(windows: Windows, exp_dir: Path, set_name: str, num: int) -> Iterator[str]:
    """Windows from all over a set: true words above those that were found, and the sound."""
    folder = Experiment(exp_dir).decode_dir(set_name, METHOD)
    true, found = (read_trn(folder / f"{name}.trn") for name in ("ref", "hyp"))
    yield "<h2>Windows</h2>"
    yield (
        f"<p>Of {escape(set_name)}. All words are masked; above are those that were said, below "
        "those that were found from the sound alone.</p>"
    )
    for number in range(0, len(windows), max(1, len(windows) // num)):
        cut = windows[number].cut
        pairs = list(zip(true[cut.id].split(), found[cut.id].split(), strict=False))
        rows = (
            "".join(
                f"<td{'' if pair[0] == pair[1] else WRONG}>{escape(pair[side])}</td>"
                for pair in pairs
            )
            for side in (0, 1)
        )
        sound = data_uri(wav(load_samples(cut), cut.sampling_rate), "audio/wav")
        yield f'<div class="window scroll"><h3>{escape(cut.id)}</h3><table>'
        yield from (f"<tr>{row}</tr>" for row in rows)
        yield f'</table><audio controls preload="metadata" src="{sound}"></audio></div>'


def about(experiment: Experiment, options: Options, model: WindowModel) -> facts.About:
    """What is known of a trained experiment; see `plateau.report.facts.about`."""
    epochs = facts.read_epochs(experiment.path)
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    window = options.window
    found = {
        "model": f"{millions:.2f} million parameters, {options.window_model.num_blocks} blocks",
        "windows": f"{window.words} words, {window.feature_frames / 100:g} s of audio at most",
        "training": facts.training(epochs),
    }
    return facts.About(found, facts.list_options(options), "", epochs)


def main(exp_dir: Path, set: str = "", num: int = 10) -> None:
    """Write report/index.html in an experiment's folder: one file, to be opened in a browser.

    Args:
        exp_dir: the experiment's folder, decoded
        set: the set whose windows are shown; without it, the first that is decoded
        num: how many of them, about
    """
    if not 1 <= num <= MOST:
        raise UserError(f"--num {num}: show 1 to {MOST} windows")
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, Options, build_model)
    corpus = corpus_of(options)
    if set and set not in corpus.test_sets():
        raise UserError(f"--set {set}: there are {', '.join(corpus.test_sets())}")
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    set = set or corpus.test_sets()[0]
    windows = windows_of(corpus, set, options.window, options.window.words)
    body = show(windows, exp_dir, set, num)
    known = about(experiment, options, model)
    path = write_page(exp_dir, known, body, files=FILES, curves=CURVES, style=STYLE)
    print(f"report: {path}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli(main)
