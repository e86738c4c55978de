"""run.sh with stubs in place of its Python scripts: which stages are done again, and why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each call is a line in ./log. A script fails if it is $FAIL. Options are of the form section.x=v.
PYTHON = r"""#!/usr/bin/env bash
set -eu
script=$1
if [ "$*" = "utils/torchrun.py --check 999" ]; then echo "too many" >&2; exit 1; fi
if [ "$2" = --check ]; then exit 0; fi
echo "$*" >>log
if [ "$script" = "${FAIL:-}" ]; then echo "$script: broken" >&2; exit 1; fi
if [ "$script" = utils/torchrun.py ]; then script=$5; shift 4; fi
case $script in
  local/configure.py)
    while [ "$1" != -- ]; do
      if [ "$1" = --exp-dir ]; then exp_dir=$2; fi
      shift
    done
    for section in data_dir corpus features tokens encoder training decoding; do
      echo "$section:"
      for option; do
        case $option in $section.*) option=${option#*.} && echo "  ${option/=/: }" ;; esac
      done
    done >"$exp_dir/config.yaml"
    echo speech lang_bpe
    ;;
  local/sets.py)
    cat sets 2>/dev/null || printf 'dev\ndev test\n'
    ;;
  egs/*/prepare.py)
    for set in train dev test; do
      mkdir -p "$2/$set"
      sed -n '/^corpus:/,/^features:/p' "$4" | grep -v num_workers >"$2/$set/text"
      echo "audio of $set" >"$2/$set/wav.scp"
    done
    ;;
  local/make_manifests.py) mkdir -p "$2/manifests"; touch "$2/manifests/toy_recordings_train" ;;
  local/compute_fbank.py)
    mkdir -p "$2/fbank"
    touch "$2/fbank/features" "$2/manifests/toy_cuts_train"
    sha256sum <"${AUDIO:-/dev/null}" >"$2/fbank/statistics.json"
    ;;
  local/make_tokens.py) mkdir -p "$2/lang_bpe"; touch "$2/lang_bpe/tokens.txt" ;;
  */train.py)
    mkdir -p "$2/tensorboard"
    echo "$(wc -l <log)" >"$2/checkpoints/averaged.safetensors"
    ;;
  */decode.py)
    mkdir -p "$2/decode_dev_greedy"
    cp "$2/checkpoints/averaged.safetensors" "$2/decode_dev_greedy"
    ;;
  */align.py) mkdir -p "$2/align_dev"; touch "$2/align_dev/words.ctm" ;;
  local/results.py) echo "the table"; touch "$2/results.json" ;;
  local/report.py) test -e "$2/results.json" && echo "the report" ;;
esac
"""


class Clone:
    """The shell half of a clone, with a corpus `toy`."""

    def __init__(self, root: Path):
        self.root = root
        (root / "utils").mkdir(parents=True)
        (root / "bin").mkdir()
        (root / "egs" / "toy").mkdir(parents=True)
        (root / "egs" / "toy" / "prepare.py").touch()
        for recipe in ("conformer_ctc", "transducer"):
            (root / recipe).mkdir()
            (root / recipe / "train.py").touch()
        for name in ("run.sh", "cmd.sh", "utils/stages.sh", "utils/parse_options.sh"):
            shutil.copy(ROOT / name, root / name)
        shutil.copytree(ROOT / "local" / "kinds", root / "local" / "kinds")
        (root / "path.sh").write_text(f'export PATH="{root}/bin:$PATH"\n')
        (root / "bin" / "python").write_text(PYTHON)
        (root / "bin" / "python").chmod(0o755)
        self.exp_dir = root / "exp" / "toy" / "conformer_ctc" / "x"

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [self.root / "run.sh", "--corpus", "toy", *arguments],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            cwd=self.root.parent,
        )

    def did(self, *arguments: str, **environment: str) -> list[str]:
        """The scripts that a run starts, without configure and stage 8, which it always does."""
        (self.root / "log").unlink(missing_ok=True)
        done = self.run("--exp", "x", *arguments, **environment)
        assert done.returncode == 0, done.stderr
        calls = (self.root / "log").read_text().splitlines()
        names = [Path(call.split()[0]).stem for call in calls]
        assert names.count("sets") == 1
        names.remove("sets")
        assert (names[0], names[-2:]) == ("configure", ["results", "report"])
        return names[1:-2]


@pytest.fixture
def clone(tmp_path) -> Clone:
    return Clone(tmp_path / "clone")


DATA = ["make_manifests"]
TRAIN = ["check", "train", "decode"]
ALL = ["prepare", *DATA, "compute_fbank", "make_tokens", *TRAIN]


def test_everything_is_done_once_and_the_table_comes_at_the_end(clone):
    done = clone.run("--exp", "x")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-2:] == ["the table", "the report"]
    assert clone.did() == []
    assert clone.did("--force") == ALL


@pytest.mark.parametrize(
    ("override", "again"),
    [
        ("corpus.hours=2", ALL),
        ("features.num_mel_bins=40", ["compute_fbank", *TRAIN]),
        ("tokens.kind=char", ["make_tokens", *TRAIN]),
        ("encoder.kind=blstm", TRAIN),
        ("training.epochs=3", TRAIN),
        ("decoding.beam=3", ["check", "decode"]),
    ],
)
def test_what_depends_on_a_changed_option_is_done_again(clone, override, again):
    assert clone.did() == ALL
    assert clone.did("--", override) == again
    assert clone.did("--", override) == []


@pytest.mark.parametrize(
    ("deleted", "again"),
    [
        ("data/toy", ALL[:4]),
        ("data/toy/manifests", [*DATA, "compute_fbank"]),
        ("data/toy/fbank", ["compute_fbank"]),
        ("data/toy/lang_bpe", ["make_tokens"]),
        ("exp/toy/conformer_ctc/x/checkpoints", ["train", "decode"]),
    ],
)
def test_deleted_outputs_are_made_again(clone, deleted, again):
    clone.did()
    shutil.rmtree(clone.root / deleted)
    assert clone.did() == again
    assert (clone.root / "data/toy/manifests/toy_cuts_train").exists()
    assert clone.did() == []


@pytest.mark.parametrize(
    ("output", "stage", "again"),
    [
        ("data/toy/manifests/toy_recordings_train", 1, [*DATA, "compute_fbank"]),
        ("data/toy/manifests/toy_cuts_train", 2, ["compute_fbank"]),
        ("data/toy/fbank/features", 2, ["compute_fbank"]),
        ("data/toy/lang_bpe/tokens.txt", 3, ["make_tokens"]),
        ("exp/toy/conformer_ctc/x/checkpoints/averaged.safetensors", 5, ["train", "decode"]),
        ("exp/toy/conformer_ctc/x/decode_dev_greedy/averaged.safetensors", 6, ["decode"]),
    ],
)
def test_an_output_that_is_gone_is_said_and_made_again(clone, output, stage, again):
    """Case 20: a feature archive is gone. The checkpoints stay, and training goes on with them."""
    clone.did()
    (clone.exp_dir / "checkpoints/last.safetensors").write_text("half way")
    (clone.root / output).unlink()
    done = clone.run("--exp", "x", "--stop-stage", str(stage))
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(f"stage {stage},")]
    assert line.endswith(f": {output} is missing: done again")
    assert (clone.root / output).exists()
    (clone.root / output).unlink()
    assert clone.did()[: len(again)] == again
    assert (clone.exp_dir / "checkpoints/last.safetensors").exists()


def test_audio_that_was_replaced_makes_features_and_models_stale(clone):
    audio = clone.root / "an audio file.wav"
    audio.write_bytes(b"one")
    clone.run("--exp", "x", "--stop-stage", "0")
    (clone.root / "data/toy/train/wav.scp").write_text(f"u {audio}\nv cat {audio} |\n")
    clone.did(AUDIO=str(audio))
    assert clone.did(AUDIO=str(audio)) == []
    # Another time alone does not throw a model away.
    os.utime(audio, (1, 1))
    assert clone.did(AUDIO=str(audio)) == [*DATA, "compute_fbank", "make_tokens", "decode"]
    assert not (clone.exp_dir / "before-1").exists()
    audio.write_bytes(b"two")
    assert clone.did(AUDIO=str(audio)) == ALL[1:]
    assert (clone.exp_dir / "before-1/checkpoints/averaged.safetensors").exists()


@pytest.mark.parametrize(
    ("field", "again"),
    [("tokens.lexicon", ["make_tokens", *TRAIN]), ("decoding.arpa", ["check", "decode"])],
)
def test_another_file_behind_the_same_option_is_another_option(clone, field, again):
    file = clone.root / "file with spaces.txt"
    file.write_text("one\n")
    clone.did("--", f"{field}={file}")
    assert clone.did("--", f"{field}={file}") == []
    file.write_text("two\n")
    assert clone.did("--", f"{field}={file}") == again


@pytest.mark.parametrize(
    ("arguments", "stale"),
    [
        (["--stage", "8"], []),
        (["--stage", "8", "--", "decoding.beam=3"], ["stage 6, decoding"]),
        (["--stage", "6", "--", "decoding.beam=3"], []),
        (["--stage", "6", "--", "training.epochs=3"], ["stage 5, training"]),
        (
            ["--stage", "4", "--", "features.num_mel_bins=40", "tokens.kind=char"],
            ["stage 2, features", "stage 3, tokens"],
        ),
        (["--stage", "1", "--stop-stage", "1", "--", "decoding.beam=3"], []),
    ],
)
def test_results_that_are_not_of_these_options_are_told(clone, arguments, stale):
    """A table, or a model, is not shown for that of options that it was not made with."""
    clone.did()
    done = clone.run("--exp", "x", *arguments)
    assert done.returncode == 0
    said = f"was done with other options or data, and is left so by --stage {arguments[1]}"
    assert done.stderr.splitlines() == [f"{stage}: {said}" for stage in stale]


def test_other_test_sets_are_decoded_without_training_again(clone):
    clone.did()
    (clone.root / "sets").write_text("dev\ntest\n")
    assert clone.did() == ["check", "decode"]
    assert clone.did() == []
    (clone.root / "sets").write_text("\ntest\n")
    assert clone.did() == TRAIN


def test_who_loads_batches_does_not_matter_to_the_model(clone):
    clone.did()
    config = clone.root / "bin/python"
    config.write_text(
        config.read_text().replace(
            'echo "$section:"', 'echo "$section:"\n      echo "  num_workers: $RANDOM"'
        )
    )
    clone.did()
    assert "train" not in clone.did()


def test_other_transcripts_are_trained_again(clone):
    clone.did()
    with (clone.root / "data/toy/train/text").open("a") as file:
        file.write("another line\n")
    assert clone.did() == ALL[1:]


def test_a_new_test_set_is_decoded_without_training_again(clone):
    clone.did()
    shutil.copytree(clone.root / "data/toy/test", clone.root / "data/toy/test_other")
    assert clone.did() == [*DATA, "compute_fbank", "make_tokens", "decode"]


def test_a_renamed_set_is_another_set(clone):
    clone.did()
    (clone.root / "data/toy/test").rename(clone.root / "data/toy/test_clean")
    assert clone.did()[:2] == [*DATA, "compute_fbank"]


def test_results_of_other_options_are_set_aside_with_their_model(clone):
    clone.did()
    model = (clone.exp_dir / "checkpoints" / "averaged.safetensors").read_text()
    (clone.exp_dir / "decode_dev_one_best").mkdir()
    clone.did("--", "training.epochs=3")
    kept = clone.exp_dir / "before-1"
    assert (kept / "checkpoints" / "averaged.safetensors").read_text() == model
    assert (kept / "decode_dev_greedy" / "averaged.safetensors").read_text() == model
    assert (kept / "decode_dev_one_best").exists()
    assert (kept / "results.json").exists()
    assert (kept / "tensorboard").exists()
    # A method that is no longer asked for must not get into the new table.
    assert not (clone.exp_dir / "decode_dev_one_best").exists()
    assert (clone.exp_dir / "decode_dev_greedy" / "averaged.safetensors").read_text() != model


def test_a_training_that_died_goes_on_with_its_checkpoints(clone):
    assert clone.run("--exp", "x", FAIL="conformer_ctc/train.py").returncode == 1
    (clone.exp_dir / "checkpoints" / "last.safetensors").write_text("half way")
    assert clone.did() == ["train", "decode"]
    assert (clone.exp_dir / "checkpoints" / "last.safetensors").read_text() == "half way"
    assert not (clone.exp_dir / "before-1").exists()


def test_checkpoints_of_other_options_are_not_gone_on_with(clone):
    assert clone.run("--exp", "x", FAIL="conformer_ctc/train.py").returncode == 1
    (clone.exp_dir / "checkpoints" / "last.safetensors").write_text("half way")
    assert clone.did("--", "training.epochs=3") == TRAIN
    assert not (clone.exp_dir / "checkpoints" / "last.safetensors").exists()
    assert (clone.exp_dir / "before-1" / "checkpoints" / "last.safetensors").exists()


@pytest.mark.parametrize(
    "script",
    [
        "local/configure.py",
        "egs/toy/prepare.py",
        "local/sets.py",
        "local/make_manifests.py",
        "local/compute_fbank.py",
        "local/make_tokens.py",
        "local/check.py",
        "conformer_ctc/train.py",
        "conformer_ctc/decode.py",
        "local/results.py",
        "local/report.py",
    ],
)
def test_a_script_that_fails_ends_the_job_and_is_done_again(clone, script):
    done = clone.run("--exp", "x", FAIL=script)
    assert done.returncode == 1
    assert done.stderr == f"{script}: broken\n"
    assert (clone.root / "log").read_text().splitlines()[-1].startswith(script)
    name = Path(script).stem
    if name not in ("configure", "sets", "results", "report"):
        start = ALL.index(name)
        assert clone.did() == ALL[start:]


def test_stages_can_be_chosen(clone):
    clone.did()
    (clone.root / "log").unlink()
    done = clone.run("--exp", "x", "--stage", "2", "--stop-stage", "3", "--force")
    assert done.returncode == 0
    calls = (clone.root / "log").read_text().splitlines()
    assert [Path(call.split()[0]).stem for call in calls] == [
        "configure",
        "sets",
        "compute_fbank",
        "make_tokens",
    ]


STAGE = "it must be a whole number, at least 0 and at most 8"
PROCESSES = "it must be a whole number, at least 1 and at most 1000"
NAME = "no part of a name may be empty, begin with a dot, or have control characters"
RECIPES = "it must be one of conformer_ctc transducer"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stage", "five"], f"--stage is five; {STAGE}"),
        (["--stage", "9"], f"--stage is 9; {STAGE}"),
        (["--stage", "-1"], f"--stage is -1; {STAGE}"),
        (["--stage", "2.5"], f"--stage is 2.5; {STAGE}"),
        (["--stage", "9" * 20], f"--stage is {'9' * 20}; {STAGE}"),
        (["--stage", "a[$(touch mischief)]"], STAGE),
        (["--stop-stage", "9"], f"--stop-stage is 9; {STAGE}"),
        (["--stage", "5", "--stop-stage", "2"], "--stage 5 comes after --stop-stage 2"),
        (["--nj", "0"], f"--nj is 0; {PROCESSES}"),
        (["--nj", "1e3"], f"--nj is 1e3; {PROCESSES}"),
        (["--num-gpus", "0"], f"--num-gpus is 0; {PROCESSES}"),
        (["--num-gpus", "-1"], f"--num-gpus is -1; {PROCESSES}"),
        (["--num-gpus", "1001"], f"--num-gpus is 1001; {PROCESSES}"),
        (["--corpus", "mine"], "neither egs/mine nor your data directory data/mine/train"),
        (["--corpus", "../x"], f"--corpus is ../x; {NAME}"),
        (["--corpus", "a/../../x"], f"--corpus is a/../../x; {NAME}"),
        (["--corpus", ".hidden"], f"--corpus is .hidden; {NAME}"),
        (["--corpus", "/x"], f"--corpus is /x; {NAME}"),
        (["--corpus", "a//x"], f"--corpus is a//x; {NAME}"),
        (["--corpus", "a\nx"], f"--corpus is $'a\\nx'; {NAME}"),
        (["--corpus", "$(touch mischief)"], "neither egs/$(touch mischief) nor"),
        (["--exp", ".."], f"--exp is ..; {NAME}"),
        (["--exp", "."], f"--exp is .; {NAME}"),
        (["--exp", "../../../x"], f"--exp is ../../../x; {NAME}"),
        (["--exp", "/x"], f"--exp is /x; {NAME}"),
        (["--exp", "a\nb"], f"--exp is $'a\\nb'; {NAME}"),
        (["--exp", "a/b"], "--exp is a/b; an experiment is one folder in exp/CORPUS/RECIPE"),
        (["--", "x.y=a\nb"], NAME),  # the experiment would have its name from it
        (["--recipe", "../evil"], f"--recipe is ../evil; {RECIPES}"),
        (["--recipe", "nope"], f"--recipe is nope; {RECIPES}"),
        (["--recipe", "local"], f"--recipe is local; {RECIPES}"),
        (["--recipe", "transducer/"], f"--recipe is transducer/; {RECIPES}"),
    ],
)
def test_mistakes_are_one_line_and_nothing_is_written(clone, arguments, message):
    before = sorted(clone.root.parent.rglob("*"))
    done = clone.run(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr
    assert done.stderr.startswith("run.sh: ") and done.stderr.count("\n") == 1
    assert sorted(clone.root.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exp", ""], "run.sh: option --exp needs a value"),
        (["--exp", "--force"], "run.sh: option --exp needs a value"),
        (["--exp"], "run.sh: option --exp needs a value"),
        (["--stop-stage", ""], "run.sh: option --stop-stage needs a value"),
        (["--steps", "3"], "run.sh: unknown option --steps; ./run.sh --help lists them"),
        (["--exp=x"], "run.sh: unknown option --exp=x; ./run.sh --help lists them"),
        (["training.epochs=3"], "run.sh: 'training.epochs=3' is not an option"),
    ],
)
def test_what_is_no_option_is_one_line_and_nothing_is_written(clone, arguments, message):
    before = sorted(clone.root.parent.rglob("*"))
    done = clone.run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert sorted(clone.root.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["two words", "$(touch mischief)", "a;b", "-x", "ö%'\"*[a]\\"])
def test_a_name_with_signs_of_the_shell_is_a_name(clone, name):
    done = clone.run("--exp", name)
    assert (done.returncode, done.stderr) == (0, "")
    assert (clone.exp_dir.parent / name / "results.json").exists()
    assert not list(clone.root.parent.rglob("mischief"))
    done = clone.run("--exp", name, "--stop-stage", "7")
    assert done.stdout.count("done before") == 7


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        (
            "transducer/pipeline.sh",
            ["--more-epochs", "0"],
            "--more-epochs is 0; it must be a whole",
        ),
        ("local/alignment_study.sh", ["--settings", "ctc nope"], "--settings has no 'nope'"),
        ("local/alignment_study.sh", ["--encoders", "blstm x"], "--encoders has no 'x'"),
        ("local/alignment_study.sh", ["--seeds", " "], "name no experiment"),
        ("local/tensorboard.sh", [".", "99999"], "'99999' is no port"),
        ("local/tensorboard.sh", ["nowhere"], "no folder nowhere"),
    ],
)
def test_mistakes_of_the_other_scripts_are_one_line_before_anything_runs(
    clone, script, arguments, message
):
    (clone.root / "local").mkdir(exist_ok=True)
    shutil.copy(ROOT / script, clone.root / script)
    done = subprocess.run(
        ["bash", clone.root / script, *arguments], capture_output=True, text=True, cwd=clone.root
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not (clone.root / "log").exists() and not (clone.root / "exp").exists()


def test_experiments_are_named_by_what_makes_them_different(clone):
    clone.run()
    clone.run("--", "training.epochs=3", "corpus.x=a/b c")
    names = {path.name for path in (clone.root / "exp/toy/conformer_ctc").iterdir()}
    assert names == {"default", "default,training.epochs=3,corpus.x=a_b_c"}


def test_several_gpus_are_several_processes(clone):
    clone.did("--num-gpus", "2")
    calls = (clone.root / "log").read_text()
    train = "conformer_ctc/train.py exp/toy/conformer_ctc/x"
    assert f"utils/torchrun.py --standalone --nproc_per_node 2 {train}\n" in calls


def test_more_gpus_than_there_are_end_it_before_the_first_stage(clone):
    done = clone.run("--num-gpus", "999")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "too many\n")
    assert not (clone.root / "exp").exists()
    # On a cluster it is for the machine that trains to say.
    assert clone.run("--num-gpus", "999", PLATEAU_CLUSTER="sge").stdout.startswith("stage 0")


def test_how_many_gpus_there_are():
    command = [sys.executable, ROOT / "utils/torchrun.py", "--check"]
    done = subprocess.run([*command, "999"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("--num-gpus is 999; it must be at most ")
    assert done.stderr.count("\n") == 1
    assert subprocess.run([*command, "1"]).returncode == 0


def test_paths_are_those_of_who_calls(clone):
    """The tests call it from the folder above the clone."""
    clone.run("--exp", "x", "--corpus-dir", "waves", "--config", "my.yaml")
    calls = (clone.root / "log").read_text()
    assert f"--corpus-dir {clone.root.parent}/waves\n" in calls
    assert f"--config {clone.root.parent}/my.yaml --keep" in calls
    # Later runs need not say again where the corpus is.
    assert clone.did("--force")
    assert f"--corpus-dir {clone.root.parent}/waves\n" in (clone.root / "log").read_text()


def test_pipes_are_allowed_only_on_demand(clone):
    clone.did()
    assert "--allow-pipes" not in (clone.root / "log").read_text()
    clone.did("--allow-pipes", "--force")
    assert (clone.root / "log").read_text().count("--allow-pipes") == 1


def test_a_recipe_that_aligns_does_so_once(clone):
    assert "align" not in clone.did()
    (clone.root / "conformer_ctc" / "align.py").touch()
    assert clone.did() == ["align"]
    assert clone.did() == []
    shutil.rmtree(clone.exp_dir / "align_dev")
    assert clone.did() == ["align"]


SHELLS = ["sh", "dash", "bash --posix", "env POSIXLY_CORRECT=1 bash", "zsh"]


@pytest.mark.parametrize("shell", SHELLS)
def test_other_shells_start_bash(clone, shell):
    if shutil.which(shell.split()[0]) is None:
        pytest.skip(f"no {shell} here")
    command = [*shell.split(), "run.sh", "--corpus", "toy", "--exp", "x"]
    done = subprocess.run(command, cwd=clone.root, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "the report"


@pytest.mark.parametrize(
    "script",
    [
        "run_tests.sh",
        ".ci/run",
        "local/align.sh",
        "local/alignment_study.sh",
        "local/tensorboard.sh",
        "toy_peaky/run.sh",
        "transducer/pipeline.sh",
        "vrnn/study.sh",
        "local/fill.sh",
        "utils/make_venv.sh",
    ],
)
def test_all_scripts_start_bash(script, tmp_path):
    """What comes after their heads is replaced by a line that only bash understands."""
    head, _ = (ROOT / script).read_text().split("set -euo pipefail\n")
    (tmp_path / "x.sh").write_text(head + 'set -euo pipefail\ncat <(echo "$@")\n')
    done = subprocess.run(["sh", tmp_path / "x.sh", "a b"], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("a b\n", "")


def test_a_full_disk_does_not_make_checkpoints_those_of_other_options(clone):
    assert clone.run("--exp", "x", FAIL="conformer_ctc/train.py").returncode == 1
    checkpoints = clone.exp_dir / "checkpoints"
    (checkpoints / "last.pt").write_text("half way")
    (checkpoints / ".key.tmp").symlink_to("/dev/full")
    done = clone.run("--exp", "x")
    assert done.returncode == 1 and "No space left on device" in done.stderr
    (checkpoints / ".key.tmp").unlink()
    assert clone.did() == ["train", "decode"]
    assert (checkpoints / "last.pt").read_text() == "half way"
