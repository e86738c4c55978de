"""Ids and file names that shells, sclite, file systems or browsers read otherwise: all stages."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.corpus import Corpus
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.data.validate import examine
from plateau.io import file_name
from tests.job import run, start, trn
from tests.training.toy import RATE, speak

PAYLOAD = "touch${IFS}executed"
IDS = [
    f"$({PAYLOAD})",
    f"`{PAYLOAD}`",
    f";{PAYLOAD};",
    f"|{PAYLOAD}|",
    f"a'b\"c;{PAYLOAD};'",
    "((a)",
    "{a/@}",
    ";;comment",
    "@",
    ".hidden",
    "..",
    "a/../../../outside",
    "/outside",
    "-rf",
    "*",
    "~",
    "%41",
    "a\\nb",
    "<b>&amp;<script>alert(1)</script>",
    "x" * 300,
    "ɔ" * 300,
]
EXP_DIR = Path("exp/toy/conformer_ctc/x")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A small job of which every utterance, speaker and audio file has such a name."""
    root = tmp_path_factory.mktemp("job") / "inside"
    (root / "audio").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        random = np.random.default_rng(0)
        for set_name in ("train", "dev"):
            utterances = []
            for number, id in enumerate(IDS):
                audio = f"audio/{number} $(touch executed) `touch executed` '\"; {set_name}.wav"
                soundfile.write(audio, speak("abc"[number % 3] + "ba", random), RATE)
                utterances.append(Utterance(id, id, "abc"[number % 3] + " ba", audio))
            write_data_dir(Path("data/toy", set_name), utterances)
        options = ["training.epochs=1", "training.average_last=1", "decoding.methods=[greedy]"]
        start("conformer_ctc", EXP_DIR, options)
        config = str(EXP_DIR / "config.yaml")
        run("local/validate_data_dir.py", "data/toy/train", "data/toy/dev")
        run("local/make_manifests.py", "data/toy")
        run("local/compute_fbank.py", "data/toy", config, "--nj", "1")
        run("local/make_tokens.py", "data/toy", config)
        run("local/check.py", str(EXP_DIR))
        for script in ("train", "decode", "align"):
            run(f"conformer_ctc/{script}.py", str(EXP_DIR))
        run("local/results.py", str(EXP_DIR))
        run("local/report.py", str(EXP_DIR), "--worst", "6")
        yield root


def test_nothing_is_executed_hidden_or_outside(job):
    assert not list(job.parent.rglob("executed*"))
    assert {path.name for path in job.parent.iterdir()} == {"inside"}
    assert {path.name for path in job.iterdir()} == {"audio", "data", "exp", "default.yaml"}
    assert not list(job.rglob(".*"))


def test_every_utterance_is_in_every_file(job):
    decode = job / EXP_DIR / "decode_dev_greedy"
    assert len(trn(decode / "hyp.trn")) == len(trn(decode / "ref.trn")) == len(IDS)
    aligned = job / EXP_DIR / "align_dev"
    ids = {line.split()[0] for line in (aligned / "words.ctm").read_text().splitlines()}
    left_out = {line.split()[0] for line in (aligned / "left_out.txt").read_text().splitlines()}
    assert ids | left_out == set(IDS)
    assert {path.name for path in aligned.glob("*.TextGrid")} == {
        file_name(id, ".TextGrid") for id in ids
    }


def test_the_report_shows_ids_as_text(job):
    page = (job / EXP_DIR / "report/index.html").read_text()
    assert "<script>alert" not in page


@pytest.mark.parametrize(
    ("id", "character"),
    [
        (b"a\0b", "U+0000"),
        (b"a\x1b[31mb", "U+001B"),
        (b"a\x7fb", "U+007F"),
        ("a\u00a0b".encode(), "U+00A0"),
        ("a\u2028b".encode(), "U+2028"),
        ("a\u202eb".encode(), "U+202E"),
    ],
)
@pytest.mark.parametrize("name", ["wav.scp", "text", "utt2spk"])
def test_ids_that_no_tool_reads_alike_are_refused_in_stage_1(tmp_path, name, id, character):
    """Kaldi forbids white space; of control characters its scripts make what they like."""
    lines = {"wav.scp": b" x.wav", "text": b" one", "utt2spk": b" a"}
    for file, rest in lines.items():
        (tmp_path / file).write_bytes(b"a" + rest + b"\n" + (id + rest) * (file == name))
    found = [str(p) for p in examine(tmp_path).problems if p.kind == "id"]
    assert len(found) == 1
    assert found[0].startswith(f"{tmp_path / name}:2: id 'a") and character in found[0]


@pytest.mark.parametrize("name", ["my test", "te\nst", "test,a", ".test", "te\x1b[31mst"])
def test_sets_of_names_that_cannot_be_said_are_refused_in_stage_1(tmp_path, name):
    for folder in ("train", name):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "wav.scp").touch()
    with pytest.raises(UserError, match=r"a set's name may not .*\nrename the folder"):
        Corpus(tmp_path).check_train()
