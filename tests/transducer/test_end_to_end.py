"""The transducer through stages 1 to 8 on tones, and its alignments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("k2")

from plateau.training import checkpoint
from tests.job import ROOT, SETS, assert_watched, check_nbest, run, run_job, start
from tests.sclite import counts, needs_sclite

EXP_DIR = Path("exp/toy/transducer/x")
METHODS = ("greedy", "modified_beam", "fast_beam", "fast_beam_lg")
ARPA = """\\data\\
ngram 1=5

\\1-grams:
-1.0 <s>
-0.5 </s>
-0.7 aa
-0.7 ab
-0.7 bc

\\end\\
"""
OVERRIDES = [
    "predictor.dim=16",
    "joiner.dim=32",
    "loss.ctc_layers=[1]",
    "loss.ctc_scales=[1.0]",
    "loss.after_steps=60",
    "loss.warm_up_steps=20",
    "loss.topology=rna",
    "training.epochs=24",
    f"decoding.methods=[{','.join(METHODS)}]",
    "decoding.arpa=words.arpa",
]


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a finished job."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("job"))
    Path("words.arpa").write_text(ARPA)
    run_job("transducer", EXP_DIR, OVERRIDES)
    yield Path.cwd()
    patch.undo()
    torch.set_num_threads(threads)


pytestmark = pytest.mark.slow


def cer(exp_dir: Path) -> dict[tuple[str, str], float]:
    records = json.loads((exp_dir / "results.json").read_text())
    return {(r["set"], r["method"]): r["value"] for r in records if r["metric"] == "cer"}


def test_tones_are_learnt(job):
    found = cer(job / EXP_DIR)
    assert {method for _, method in found} == set(METHODS)
    for method in ("greedy", "modified_beam", "fast_beam"):
        assert found["test", method] < 10, found


def test_beam_searches_give_nbest_lists(job):
    with_lists = {path.parent.name for path in (job / EXP_DIR).glob("decode_test_*/nbest.txt")}
    assert with_lists == {f"decode_test_{method}" for method in METHODS if method != "greedy"}
    for name in with_lists:
        check_nbest(job / EXP_DIR / name)


@needs_sclite
@pytest.mark.parametrize("kind", ["trn", "ctm"])
@pytest.mark.parametrize("method", METHODS)
def test_sclite_finds_the_same_errors(job, method, kind):
    decode_dir = job / EXP_DIR / f"decode_test_{method}"
    found = counts(decode_dir, kind)
    total = (decode_dir / "wer.txt").read_text().splitlines()[0]
    assert f" [ {found['errors']} / {found['words']}, " in total


def test_tensorboard_shows_how_flat_alignments_are(job):
    assert_watched(job / EXP_DIR / "tensorboard", "flatness_nats", 24)


def test_alignment_has_a_line_for_each_word(job):
    run("transducer/align.py", str(EXP_DIR), "--sets", "test")
    texts = [line.split() for line in (job / "data/toy/test/text").read_text().splitlines()]
    lines = (job / EXP_DIR / "align_test/words.ctm").read_text().splitlines()
    words = [line.split() for line in lines]
    assert len(texts) == SETS["test"]
    for name, *spoken in texts:
        assert [fields[4] for fields in words if fields[0] == name] == spoken
        begins = [float(fields[2]) for fields in words if fields[0] == name]
        assert begins == sorted(begins)
        assert (job / EXP_DIR / f"align_test/{name}.TextGrid").exists()


def test_alignment_is_measured_against_the_true_times(job):
    run("transducer/align.py", str(EXP_DIR), "--sets", "test")
    metrics = job / EXP_DIR / "align_test/metrics.json"
    before = {r["metric"]: r["value"] for r in json.loads(metrics.read_text())}
    # Tokens are emitted somewhere in their tones of 100 ms.
    assert before["word_start_error_ms"] < 100 and before["word_end_error_ms"] < 100
    # With the alignment itself, 40 ms later, as the truth all errors are 40.
    ctm = job / "data/toy/test/ctm"
    truth = ctm.read_text()
    words = (job / EXP_DIR / "align_test/words.ctm").read_text().splitlines()
    later = [line.split() for line in words]
    for fields in later:
        fields[2] = f"{float(fields[2]) + 0.04:.3f}"
    ctm.write_text("".join(" ".join(f) + "\n" for f in later))
    run("local/make_manifests.py", "data/toy")
    run("transducer/align.py", str(EXP_DIR), "--sets", "test")
    found = {r["metric"]: r["value"] for r in json.loads(metrics.read_text())}
    for name in ("start", "end"):
        assert found[f"word_{name}_delay_ms"] == pytest.approx(-40, abs=1)
        assert found[f"word_{name}_error_ms"] == pytest.approx(40, abs=1)
    ctm.write_text(truth)
    run("local/make_manifests.py", "data/toy")


def test_viterbi_training_goes_on_from_an_alignment(job):
    run("transducer/align.py", str(EXP_DIR), "--sets", "train,dev")
    files = ",".join(f"{EXP_DIR}/align_{name}/frames.txt" for name in ("train", "dev"))
    exp_dir = EXP_DIR.with_name("y")
    options = [
        "loss.kind=viterbi",
        "loss.aligner=file",
        f"loss.alignment={files}",
        "loss.after_steps=0",
        f"init_from={EXP_DIR}",
        "training.epochs=2",
    ]
    start("transducer", exp_dir, [*OVERRIDES, *options])
    run("transducer/train.py", str(exp_dir))
    aligned = job / EXP_DIR / "align_train"
    aligned.rename(job / "elsewhere")  # a trained model needs its alignments no more
    run("transducer/decode.py", str(exp_dir))
    run("local/results.py", str(exp_dir))
    (job / "elsewhere").rename(aligned)
    assert cer(job / exp_dir)["test", "greedy"] < 10
    missing = job / EXP_DIR / "align_dev" / "frames.txt"
    missing.write_text("")
    (job / exp_dir / "checkpoints").rename(job / exp_dir / "checkpoints_before")
    with pytest.raises(AssertionError, match="no alignment of dev-"):
        run("transducer/train.py", str(exp_dir))


def test_two_processes_train_together(job):
    exp_dir = EXP_DIR.with_name("z")
    start("transducer", exp_dir, [*OVERRIDES, "loss.after_steps=3", "training.epochs=1"])
    launch = [sys.executable, ROOT / "utils/torchrun.py", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launch, ROOT / "transducer/train.py", exp_dir]
    subprocess.run(command, env=environment, check=True, timeout=300)
    last = checkpoint.load(job / exp_dir / "checkpoints/last.safetensors")
    assert last["progress"]["step"] > 3  # CTC alone leaves some parameters without a gradient
