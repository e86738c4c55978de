"""utils/stages.sh by small scripts with stub commands."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest
import yaml

from conformer_ctc.options import Options
from plateau import config

ROOT = Path(__file__).parents[2]
HEAD = f"""set -euo pipefail
stage=0 stop_stage=8 force=false exp_dir=$PWD
. {ROOT}/utils/stages.sh
"""


@pytest.fixture
def bash(tmp_path):
    """A function that runs lines after those of run.sh, in tmp_path."""

    def run(lines: str, check: bool = True) -> subprocess.CompletedProcess:
        done = subprocess.run(
            ["bash", "-c", HEAD + lines, "run.sh"], cwd=tmp_path, capture_output=True, text=True
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


STAGE = """
work() { echo "$@" >>log; mkdir -p out; echo done >out/result; }
run_stage 2 "the work" out/.done "key" . -- work a "b c"
"""


def log(tmp_path: Path) -> list[str]:
    return (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []


def test_a_stage_is_done_once(bash, tmp_path):
    assert bash(STAGE).stdout == "stage 2, the work\n"
    assert bash(STAGE).stdout == "stage 2, the work: done before\n"
    assert log(tmp_path) == ["a b c"]


def test_a_stage_is_done_again_when_what_it_depends_on_changes(bash, tmp_path):
    bash(STAGE)
    bash(STAGE.replace('"key"', '"another key"'))
    bash(STAGE.replace('"key"', '"another key"'))
    assert len(log(tmp_path)) == 2
    bash(STAGE)
    assert len(log(tmp_path)) == 3


def test_a_stage_is_done_again_when_its_outputs_are_deleted(bash, tmp_path):
    bash(STAGE)
    bash("rm -r out" + STAGE)
    assert len(log(tmp_path)) == 2
    assert (tmp_path / "out" / "result").exists()


def test_a_stage_is_done_again_with_force(bash, tmp_path):
    bash(STAGE)
    bash("force=true" + STAGE)
    assert len(log(tmp_path)) == 2
    assert "done before" in bash(STAGE).stdout


OUTPUTS = """
work() {
  echo "$@" >>log
  mkdir -p "out [1]/a b" out/decode_x
  echo one >"out [1]/a b/file"; echo two >"out [1]/other"; echo three >out/decode_x/hyp
}
run_stage 2 "the work" "out [1]/.done" "key" . ../out/'decode_*' -- work a
"""


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("rm 'out [1]/a b/file'", "out [1]/a b/file is missing"),
        ("echo o >'out [1]/other'", "out [1]/other has 2 bytes, not 4"),
        (": >out/decode_x/hyp", "out/decode_x/hyp has 0 bytes, not 6"),
        ("rm -r out", "out/decode_x/hyp is missing"),
        ("rm -r out 'out [1]/a b'", "out [1]/a b/file is missing (and 1 others)"),
    ],
)
def test_a_stage_is_done_again_when_an_output_is_gone_or_cut_short(bash, tmp_path, damage, said):
    assert bash(OUTPUTS).stdout == "stage 2, the work\n"
    assert bash(OUTPUTS).stdout == "stage 2, the work: done before\n"
    bash(damage)
    assert bash(OUTPUTS).stdout == f"stage 2, the work: {said}: done again\n"
    assert bash(OUTPUTS).stdout == "stage 2, the work: done before\n"
    assert len(log(tmp_path)) == 2


def test_what_is_there_beside_the_outputs_does_not_matter(bash, tmp_path):
    bash(OUTPUTS)
    (tmp_path / "out [1]" / "mine").write_text("notes")
    (tmp_path / "out/decode_y").mkdir()
    (tmp_path / "out [1]/other").touch()  # another time
    assert bash(OUTPUTS).stdout == "stage 2, the work: done before\n"


def test_a_mark_without_outputs_has_nothing_to_compare(bash, tmp_path):
    bash(OUTPUTS)
    mark = tmp_path / "out [1]/.done"
    mark.write_text(mark.read_text().splitlines()[0] + "\n")
    (tmp_path / "out [1]/other").unlink()
    assert bash(OUTPUTS).stdout == "stage 2, the work: done before\n"


def test_a_process_that_is_killed_is_told(bash, tmp_path):
    """It cannot say anything itself."""
    killed = "work() { sh -c 'kill -9 $$'; }\nrun_stage 5 training out/.done key . -- work\n"
    done = bash(killed, check=False)
    first, second = done.stderr.splitlines()[-2:]
    assert done.returncode == 137
    assert first == "run.sh: stage 5, training: killed by signal 9 (SIGKILL)"
    assert re.fullmatch(
        r"memory: Total: [\d.]+ GB, Available: [\d.]+ GB, "
        r"processes that the kernel killed for want of memory meanwhile: \d+",
        second,
    )


def test_a_process_that_fails_has_said_why_itself(bash):
    failing = "work() { echo reason >&2; return 3; }\nrun_stage 5 x out/.done key . -- work\n"
    done = bash(failing, check=False)
    assert (done.returncode, done.stderr) == (3, "reason\n")


@pytest.mark.parametrize(
    ("asked", "count"),
    [("stage=3", 0), ("stage=2", 1), ("stop_stage=1", 0), ("stop_stage=2", 1), ("stage=1", 1)],
)
def test_stages_outside_of_those_asked_for_are_not_done(bash, tmp_path, asked, count):
    done = bash(asked + STAGE)
    assert len(log(tmp_path)) == count
    assert bool(done.stdout) == bool(count)


def test_a_stage_that_fails_leaves_no_mark_and_stops_the_script(bash, tmp_path):
    failing = "work() { echo begun >>log; false; echo not reached >>log; }"
    failing += '\nrun_stage 2 "the work" out/.done "key" . -- work\necho after >>log\n'
    bash(STAGE)
    done = bash("force=true\n" + failing, check=False)
    assert done.returncode == 1
    assert log(tmp_path) == ["a b c", "begun"]
    # The mark of the run before is gone as well.
    assert not (tmp_path / "out" / ".done").exists()
    bash(STAGE)
    assert log(tmp_path) == ["a b c", "begun", "a b c"]


def test_a_killed_stage_leaves_no_mark(bash, tmp_path):
    bash(STAGE)
    killed = 'work() { echo begun >>log; kill -9 $$; }\nrun_stage 2 "x" out/.done "new" . -- work\n'
    done = bash(killed, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / ".done").exists()
    assert "done before" not in bash(STAGE).stdout


def test_a_stage_knows_its_key(bash, tmp_path):
    bash('work() { echo "$STAGE_KEY" >key; }\nrun_stage 2 "x" out/.done "depends" -- work')
    assert (tmp_path / "key").read_text() == (tmp_path / "out" / ".done").read_text()
    # Who depends on the stage does not see its outputs.
    bash("echo 12 file >>out/.done")
    assert bash("mark out/.done").stdout == (tmp_path / "key").read_text()


def test_mark_of_what_is_not_there_is_none(bash):
    assert bash('echo "$(mark nowhere/.done)"').stdout == "none\n"


def test_sections_of_a_real_config(bash, tmp_path):
    overrides = ["corpus.hours=2", "features.perturb_speed=[0.9, 1.1]", "data_dir=data/x"]
    options = config.resolve(Options, {}, overrides)
    config.save(options, tmp_path / "config.yaml")
    whole = yaml.safe_load((tmp_path / "config.yaml").read_text())
    for names in (["corpus"], ["features"], ["decoding"], ["tokens", "encoder"], ["data_dir"]):
        joined = " ".join(names)
        part = yaml.safe_load(bash(f"options_of {joined}").stdout)
        assert part == {name: whole[name] for name in names}
        rest = yaml.safe_load(bash(f"options_except {joined}").stdout)
        assert rest == {name: whole[name] for name in whole if name not in names}
    assert whole["corpus"] == {"hours": 2}
    assert bash("options_of hours").stdout == ""  # only at the top level


def test_set_aside_keeps_everything(bash, tmp_path):
    for n in range(2):
        for name in ("checkpoints", "log"):
            (tmp_path / "exp" / name).mkdir(parents=True)
            (tmp_path / "exp" / name / "file").write_text(f"{name} {n}")
        (tmp_path / "exp" / "results.json").write_text(f"results {n}")
        (tmp_path / "exp" / "config.yaml").write_text("stays")
        done = bash("set_aside exp checkpoints tensorboard log results.json 'decode_*'")
        assert f"kept in exp/before-{n + 1}" in done.stdout
    assert [p.name for p in sorted((tmp_path / "exp").iterdir())] == [
        "before-1",
        "before-2",
        "config.yaml",
    ]
    for n in range(2):
        kept = tmp_path / "exp" / f"before-{n + 1}"
        files = {str(p.relative_to(kept)): p.read_text() for p in kept.rglob("*") if p.is_file()}
        assert files == {
            "checkpoints/file": f"checkpoints {n}",
            "log/file": f"log {n}",
            "results.json": f"results {n}",
        }


LOCKED = 'mkdir -p dir; lock 8 dir; echo "begin $1" >>log; {wait}; echo "end $1" >>log\n'


def start(tmp_path: Path, lines: str, name: str) -> subprocess.Popen:
    return subprocess.Popen(
        ["bash", "-c", HEAD + lines, "run.sh", name],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_lock_waits_for_the_other_run(tmp_path):
    os.mkfifo(tmp_path / "gate")
    first = start(tmp_path, LOCKED.format(wait="echo in; read -r <gate"), "first")
    assert first.stdout.readline() == "in\n"
    second = start(tmp_path, LOCKED.format(wait="true"), "second")
    # It says so before it waits.
    assert second.stderr.readline() == "waiting: another run works in dir\n"
    assert second.poll() is None
    (tmp_path / "gate").write_text("\n")
    assert first.wait() == second.wait() == 0
    assert log(tmp_path) == ["begin first", "end first", "begin second", "end second"]


def test_unlock_lets_the_other_run_go_on(tmp_path):
    os.mkfifo(tmp_path / "gate")
    first = start(
        tmp_path, "mkdir dir; lock 9 dir; unlock 9; echo in; read -r <gate; echo end >>log", ""
    )
    assert first.stdout.readline() == "in\n"
    second = start(tmp_path, LOCKED.format(wait="true"), "second")
    assert second.wait() == 0
    assert second.stderr.read() == ""
    (tmp_path / "gate").write_text("\n")
    assert first.wait() == 0
    assert log(tmp_path) == ["begin second", "end second", "end"]


def test_a_process_that_outlives_a_killed_run_still_holds_the_lock(tmp_path):
    os.mkfifo(tmp_path / "gate")
    lines = 'mkdir dir; lock 8 dir; sh -c "read -r x <gate; echo orphan >>log" & echo in; wait'
    first = start(tmp_path, lines, "")
    assert first.stdout.readline() == "in\n"
    first.kill()
    assert first.wait() == -signal.SIGKILL
    second = start(tmp_path, LOCKED.format(wait="true"), "second")
    assert second.stderr.readline() == "waiting: another run works in dir\n"
    (tmp_path / "gate").write_text("\n")
    assert second.wait() == 0
    assert log(tmp_path) == ["orphan", "begin second", "end second"]


def test_control_characters_of_names_do_not_reach_the_terminal(bash, tmp_path):
    name = "\x1b[31mred"
    done = bash(f"fail $'{name} \\e]0;title\\a'", check=False)
    assert done.returncode == 1
    assert "\x1b" not in done.stderr and r"\E[31mred" in done.stderr
    stage = STAGE.replace("out/result", "out/$'\\e[31mred'")
    bash(stage)
    (tmp_path / "out" / name).unlink()
    done = bash(stage)
    assert "\x1b" not in done.stdout and r"\E[31mred is missing: done again" in done.stdout
