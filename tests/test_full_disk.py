"""A disk that is full, at ten sizes for data and for exp: a line, and going on after room is made.

The disk is a tmpfs, which needs to be mounted. This file is also the script that does so, in a
mount namespace of its own: `python tests/test_full_disk.py FOLDER WHICH`. Its stages are forked, so
that torch is imported once.
"""

import gzip
import os
import runpy
import shutil
import subprocess
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
EXP_DIR = "exp/toy/conformer_ctc/x"
STAGES = {
    "data": [
        ("local/make_manifests.py", "data/toy"),
        ("local/compute_fbank.py", "data/toy", f"{EXP_DIR}/config.yaml"),
        ("local/make_tokens.py", "data/toy", f"{EXP_DIR}/config.yaml"),
    ],
    "exp": [
        ("local/check.py", EXP_DIR),
        ("conformer_ctc/train.py", EXP_DIR),
        ("conformer_ctc/decode.py", EXP_DIR),
        ("conformer_ctc/align.py", EXP_DIR),
        ("local/results.py", EXP_DIR),
        ("local/report.py", EXP_DIR),
    ],
}
OPTIONS = [
    "training.epochs=2",
    "training.average_last=1",
    "training.checkpoint_every=1",
    "decoding.methods=[greedy]",
    "loading.num_workers=0",
]
SIZES = 10
# What has times in it, or names.
DIFFERENT = (
    "tensorboard",
    "metrics.json",
    "results.json",
    "epochs.jsonl",
    "index.html",
    ".safetensors",
)


@pytest.mark.slow
@pytest.mark.parametrize("which", STAGES)
def test_a_full_disk_is_a_line_and_the_stage_goes_on_after_room_is_made(tmp_path, which):
    unshare = ["unshare", "--mount"]
    mount = [*unshare, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)]
    if shutil.which("unshare") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("cannot mount a file system here")
    command = [*unshare, sys.executable, __file__, str(tmp_path / "job"), which]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{SIZES} sizes, " in done.stdout
    assert int(done.stdout.split()[-2]) >= SIZES // 2  # times that there was no room


def stage(command: Sequence[str]) -> tuple[int, str]:
    """Exit status and last line of a script, in a fork of this process."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        sys.argv, status = list(command), 0
        try:
            runpy.run_path(str(ROOT / command[0]), run_name="__main__")
        except SystemExit as exit:
            status = 1 if exit.code else 0
            print(exit.code or "")
        except BaseException:
            traceback.print_exc()
            status = 99
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as output:
        said = output.read()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def kilobytes(folder: str) -> int:
    used = subprocess.run(["du", "-sk", folder], capture_output=True, text=True, check=True)
    return int(used.stdout.split()[0])


def contents(folder: str) -> dict[str, bytes]:
    """Files that are the same in every run, and what is in them."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {str(p): content(p) for p in files if not any(x in str(p) for x in DIFFERENT)}


def content(path: Path) -> bytes:
    """Without gzip's header, which has the time."""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def prepare() -> None:
    from plateau.data.kaldi import Utterance, write_data_dir
    from tests.job import start
    from tests.training.toy import RATE, speak

    random = np.random.default_rng(0)
    Path("audio").mkdir()
    for set_name, count in (("train", 12), ("dev", 3)):
        utterances = []
        for i in range(count):
            text, audio = f"{'abc'[i % 3]} bac", f"audio/{set_name}-{i}.wav"
            soundfile.write(audio, speak(text.replace(" ", ""), random), RATE)
            utterances.append(Utterance(f"{set_name}-{i:02}", set_name, text, audio))
        write_data_dir(Path("data/toy", set_name), utterances)
    start("conformer_ctc", Path(EXP_DIR), OPTIONS)


def main(folder: Path, which: str) -> None:
    """Do the stages once with room, then at ten sizes."""
    import conformer_ctc.train  # noqa: F401 (k2 and torch, once)

    folder.mkdir()
    os.chdir(folder)
    prepare()
    for command in STAGES["data"] if which == "exp" else ():
        assert stage(command)[0] == 0
    shutil.copytree(which, "before")
    for command in STAGES[which]:
        status, said = stage(command)
        assert status == 0, said
    expected, least, most = contents(which), kilobytes("before"), kilobytes(which)
    Path(which).rename("done")
    Path(which).mkdir()
    full = 0
    for number in range(1, SIZES + 1):
        size = least + max(8, (most - least) * number // (SIZES + 1))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", which]
        subprocess.run(mount, check=True)
        shutil.copytree("before", which, dirs_exist_ok=True)
        for command in STAGES[which]:
            status, said = stage(command)
            if status:
                assert status == 1 and "Traceback" not in said, said
                last = said.strip().splitlines()[-2:]
                assert any("No space left on device" in line for line in last), said
                assert "a file that was written" not in said, said
                full += 1
                subprocess.run(["mount", "-o", "remount,size=100m", which], check=True)
                status, said = stage(command)
            assert status == 0, said
        found = contents(which)
        assert found == expected, sorted(set(found.items()) ^ set(expected.items()))[:3]
        subprocess.run(["umount", which], check=True)
    print(f"{SIZES} sizes, no room {full} times")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main(Path(sys.argv[1]), sys.argv[2])
