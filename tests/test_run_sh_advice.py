"""run.sh with its own scripts on corpora of tones: what messages advise is done, and helps."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.data.kaldi import Utterance, write_data_dir
from tests.training.toy import RATE, speak

ROOT = Path(__file__).parent.parent


class Tones:
    """A corpus of tones and the scripts of the stages before training, in a folder of its own."""

    def __init__(self, root: Path):
        self.root = root
        for name in ("run.sh", "cmd.sh", "utils", "local", "conformer_ctc", "plateau"):
            (root / name).symlink_to(ROOT / name)
        (root / "run.sh").unlink()
        shutil.copy(ROOT / "run.sh", root)
        (root / "path.sh").write_text(f'export PYTHONPATH="{ROOT}"\nPATH="{VENV}:$PATH"\n')

    def write(self, *sets: str) -> None:
        random = np.random.default_rng(0)
        for name in sets:
            utterances = []
            for text in ("abc", "cab", "bb"):
                audio = self.root / "audio" / f"{name}-{text}.wav"
                audio.parent.mkdir(exist_ok=True)
                soundfile.write(audio, speak(text, random), RATE)
                utterances.append(Utterance(f"{name}-{text}", name, text, str(audio)))
            write_data_dir(self.root / "data/a/b" / name, utterances)

    def run(self, *arguments: str) -> subprocess.CompletedProcess:
        options = [f"features.sampling_rate={RATE}", "features.num_mel_bins=20", *FEW]
        command = ["./run.sh", "--corpus", "a/b", "--exp", "x", *arguments, "--", *options]
        return subprocess.run(command, cwd=self.root, capture_output=True, text=True)


VENV = Path(sys.executable).parent
FEW = [
    "tokens.kind=char",
    "encoder.conformer.dim=16",
    "encoder.conformer.num_layers=1",
    "encoder.conformer.num_heads=2",
    "encoder.conformer.feedforward_dim=16",
    "training.epochs=1",
    "training.checkpoint_every=1",
    "decoding.methods=[greedy]",
    "loading.num_workers=0",
]


def test_sets_of_other_names_are_found_or_named(tmp_path):
    """And each command that is named helps."""
    tones = Tones(tmp_path)
    tones.write("train_si3", "eval92", "heldout")
    done = tones.run("--stop-stage", "1")
    assert done.returncode == 1
    said, mend = done.stderr.splitlines()
    assert "no set of the name train" in said and "eval92, heldout, train_si3" in said
    subprocess.run(mend.split(": ")[1], shell=True, check=True, cwd=tmp_path)
    done = tones.run("--stop-stage", "1")
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == (
        "data/a/b: neither trained on (train) nor decoded (eval92): heldout; to decode other sets: "
        "--test-sets 'eval92 heldout'"
    )
    done = tones.run("--stop-stage", "1", "--test-sets", "eval92 heldout")
    assert (done.returncode, done.stderr) == (0, "")
    done = tones.run("--stop-stage", "1", "--dev-set", "val")
    assert done.returncode == 1
    assert (
        done.stderr
        == "sets.py: --dev-set: data/a/b has no set val; it has eval92, heldout, train\n"
    )


@pytest.mark.slow
def test_a_corpus_in_a_folder_of_corpora_and_what_is_damaged_there(tmp_path):
    tones = Tones(tmp_path)
    tones.write("train", "dev")
    done = tones.run()
    assert done.returncode == 0, done.stderr
    exp_dir = tmp_path / "exp/a/b/conformer_ctc/x"
    assert "conformer_ctc on a/b</h1>" in (exp_dir / "report/index.html").read_text()
    # It aligns as it trains.
    align = ["bash", "local/align.sh", "exp/a/b/conformer_ctc/x", "data/a/b/dev"]
    aligned = subprocess.run(align, cwd=tmp_path, capture_output=True, text=True)
    assert aligned.returncode == 0, aligned.stderr
    assert (exp_dir / "aligned/dev/words.ctm").exists()

    # Nothing is decoded: the message's command helps.
    for folder in [*exp_dir.glob("decode_*"), *exp_dir.glob("align_*")]:
        shutil.rmtree(folder)
    results = [VENV / "python", "local/results.py", exp_dir.relative_to(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(results, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    mend = done.stderr.split("yet; run ")[1]
    assert mend == "./run.sh --corpus a/b --recipe conformer_ctc --exp x\n"
    subprocess.run(mend, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert list(exp_dir.glob("decode_*"))

    # A bit of the development set's last utterance is another one: the message's command helps, and
    # training goes on with the checkpoint that it had.
    archive = tmp_path / "data/a/b/fbank/dev.lca"
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    shutil.rmtree(exp_dir / "checkpoints")
    done = tones.run("--stage", "5")
    assert done.returncode == 1
    said, mend = done.stderr.splitlines()[-2:]
    assert f"its features cannot be read: data/a/b/fbank/dev.lca ({len(whole)} bytes)" in said
    subprocess.run(mend.split(": ")[1].split(";")[0], shell=True, check=True, cwd=tmp_path)
    done = tones.run()
    assert done.returncode == 0, done.stderr
    assert archive.read_bytes() == whole
    assert "last.safetensors: 0 epochs and 3 batches are done" in done.stdout

    # A manifest that is gone, seen from a later stage.
    (tmp_path / "data/a/b/manifests/b_cuts_dev.jsonl.gz").unlink()
    done = tones.run("--stage", "6", "--force")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("start the same ./run.sh again, without --stage")
    assert tones.run().returncode == 0

    # A manifest that is damaged.
    manifest = tmp_path / "data/a/b/manifests/b_cuts_dev.jsonl.gz"
    manifest.write_bytes(bytes(manifest.stat().st_size))
    done = tones.run("--stage", "6", "--force")
    assert done.returncode == 1
    said, mend = done.stderr.splitlines()[-2:]
    assert "b_cuts_dev.jsonl.gz: damaged: Not a gzipped file" in said
    subprocess.run(mend.split(": ")[1].split(";")[0], shell=True, check=True, cwd=tmp_path)
    assert tones.run().returncode == 0

    # The model is damaged.
    final = exp_dir / "checkpoints/averaged.safetensors"
    model = final.read_bytes()
    final.write_bytes(bytes(len(model)))
    done = tones.run("--stage", "6", "--force")
    assert done.returncode == 1
    said, mend = done.stderr.splitlines()[-2:]
    assert f"averaged.safetensors: damaged ({len(model)} bytes)" in said
    mend = mend.split(": ")[1]
    assert mend == (
        "rm -f exp/a/b/conformer_ctc/x/checkpoints/averaged.safetensors; "
        "./run.sh --corpus a/b --recipe conformer_ctc --exp x"
    )
    subprocess.run(mend, shell=True, check=True, cwd=tmp_path, capture_output=True)
    assert final.exists()

    # The audio moved.
    (tmp_path / "audio").rename(tmp_path / "moved")
    done = subprocess.run(align, cwd=tmp_path, capture_output=True, text=True)
    for failed in (done, tones.run("--stage", "8")):
        assert failed.returncode == 1
        assert "dev-abc.wav: no such file; 3 of 3 audio files are not" in failed.stderr
        # With --stage it is told first that stage 1 is left as it was.
        said = failed.stderr.splitlines()[0 if failed is done else 1 :]
        assert len(said) == 3
