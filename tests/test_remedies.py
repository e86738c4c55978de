"""Commands that messages about data name: they are run as they are said, and help."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.features import FeatureOptions, make_cuts
from plateau.data.kaldi import Utterance, read_data_dir, write_data_dir
from plateau.data.loading import BatchLoader, LoadingOptions, load_batch
from plateau.data.manifests import to_manifests
from plateau.data.tokens import TokenOptions, make_lang
from tests.job import run
from tests.test_run_sh_advice import Tones

ROOT = Path(__file__).parent.parent


@pytest.fixture
def data(tmp_path) -> Path:
    """Two recordings of a second in a Kaldi directory."""
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", 0.1 * np.sin(np.arange(8000)), 8000)
    utterances = [Utterance(n, n, "one two", str(tmp_path / f"{n}.wav")) for n in ("a", "b")]
    write_data_dir(tmp_path / "train", utterances)
    return tmp_path / "train"


def do(message: str) -> subprocess.CompletedProcess:
    """Run the command that a message names, up to the end of its line."""
    command = re.search(r"python local/validate_data_dir\.py [^\n;]*", message)[0]
    command = command.split(" writes it")[0].replace("python", sys.executable, 1)
    return subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)


def test_a_broken_line_is_shown_and_mended(data):
    with (data / "utt2spk").open("a") as file:
        file.write("c\n")
    with pytest.raises(UserError) as error:
        read_data_dir(data)
    message = str(error.value).replace("[--fix]", "")
    done = do(message)
    assert done.returncode == 1 and "utt2spk:3" in done.stderr
    assert do(str(error.value).replace("[--fix]", "--fix")).returncode == 0
    assert [u.id for u in read_data_dir(data)] == ["a", "b"]


def test_an_utterance_that_not_all_files_have_is_left_out(data):
    with (data / "text").open("a") as file:
        file.write("c three\n")
    with pytest.raises(UserError, match="'c' is in only one of text and utt2spk") as error:
        read_data_dir(data)
    assert do(str(error.value)).returncode == 0
    assert [u.id for u in read_data_dir(data)] == ["a", "b"]


def test_shell_commands_run_where_they_are_allowed(data):
    scp = (data / "wav.scp").read_text().replace("a /", "a cat /").replace("a.wav", "a.wav |")
    (data / "wav.scp").write_text(scp)
    with pytest.raises(UserError, match="allow such commands to run with --allow-pipes"):
        to_manifests(data)
    recordings, _ = to_manifests(data, allow_pipes=True)
    assert recordings["a"].num_samples == 8000


def test_a_recording_without_audio_is_left_out(data):
    (data.parent / "b.wav").write_bytes(b"")
    with pytest.raises(UserError, match="mend it, or leave it out") as error:
        to_manifests(data)
    assert do(str(error.value)).returncode == 0
    assert [s.id for s in to_manifests(data)[1]] == ["a"]


@pytest.mark.parametrize("kind", ["word", "char", "bpe"])
@pytest.mark.parametrize("word", ["<unk>", "#0", "<s>", "a▁b", "x▅"])
def test_words_that_no_token_can_have_are_written_otherwise(data, kind, word):
    (data / "text").write_text(f"a one {word}\nb two\n")
    options = TokenOptions(kind, vocab_size=20)

    def lang():
        texts = [utterance.text for utterance in read_data_dir(data)]
        return make_lang(data.parent / options.lang, texts, options)

    with pytest.raises(UserError, match=re.escape(word)) as error:
        lang()
    done = do(str(error.value))
    assert done.returncode == 0, done.stderr
    said = lang().tokens
    assert len(said) == len(set(said)) and said.count("<unk>") == 1


def test_audio_that_is_gone_while_training_is_found_by_the_validation(data):
    options = FeatureOptions(8000, 20, "lhotse", on_the_fly=True)
    cuts = make_cuts(*to_manifests(data), options)
    (data.parent / "b.wav").unlink()
    with pytest.raises(UserError, match="'b': its audio cannot be read") as error:
        load_batch(cuts, options)
    done = do(str(error.value).replace("DATA_DIR", str(data)))
    assert done.returncode == 1 and "b.wav: no such file" in done.stderr


def test_audio_that_changed_after_stage_1_is_looked_at_again(tmp_path):
    tones = Tones(tmp_path)
    tones.write("train", "dev")
    assert tones.run("--stop-stage", "1").returncode == 0
    shutil.copy(tmp_path / "audio/dev-bb.wav", tmp_path / "kept.wav")
    (tmp_path / "audio/dev-bb.wav").write_bytes(b"RIFF")
    done = tones.run("--stage", "2", "--stop-stage", "2")
    assert done.returncode == 1
    said, advice = done.stderr.splitlines()[-2:]
    assert "'dev-bb': its audio cannot be read as it could in stage 1" in said
    options = re.search(r"run\.sh with (.*)$", advice)[1].split()
    done = tones.run(*options)
    assert done.returncode == 1 and "dev-bb.wav: not readable as audio" in done.stderr
    shutil.copy(tmp_path / "kept.wav", tmp_path / "audio/dev-bb.wav")
    assert tones.run("--stop-stage", "2").returncode == 0


def test_commands_in_manifests_run_where_they_are_allowed(tmp_path):
    """Those of stage 1, too, when stage 2 is started without the option."""
    tones = Tones(tmp_path)
    tones.write("train", "dev")
    scp = tmp_path / "data/a/b/dev/wav.scp"
    mark = tmp_path / "executed"
    scp.write_text(re.sub(r"(\S+) (\S+)\n", rf"\1 touch {mark}; cat \2 |\n", scp.read_text()))
    assert tones.run("--stop-stage", "1", "--allow-pipes").returncode == 0
    mark.unlink()
    done = tones.run("--stage", "2", "--stop-stage", "2")
    assert done.returncode == 1 and not mark.exists()
    said, advice = done.stderr.splitlines()[-2:]
    assert f"recording 'dev-abc' is a shell command: touch {mark}; cat" in said
    option = re.search(r"run\.sh with (--\S+)", advice)[1]
    done = tones.run("--stage", "2", "--stop-stage", "2", option)
    assert done.returncode == 0, done.stderr
    assert mark.exists()


def test_audio_that_moved_is_three_lines_and_each_remedy_helps(tmp_path, monkeypatch):
    """In stages 1 and 2, whose scripts `run` starts; what was stored stays."""
    monkeypatch.chdir(tmp_path)
    audio, scp = Path("audio"), Path("data/toy/dev/wav.scp")
    audio.mkdir()
    for set_name in ("dev", "train"):
        names = [f"{set_name}-{i}" for i in range(3)]
        for name in names:
            soundfile.write(audio / f"{name}.wav", 0.1 * np.sin(np.arange(8000)), 8000)
        write_data_dir(
            scp.parents[1] / set_name, [Utterance(n, n, "a", f"audio/{n}.wav") for n in names]
        )
    Path("config.yaml").write_text("features:\n  sampling_rate: 8000\n  backend: lhotse\n")
    stages = [("local/make_manifests.py", "data/toy")]
    stages.append(("local/compute_fbank.py", "data/toy", "config.yaml"))

    def do_both():
        for stage in stages:
            run(*stage)

    do_both()
    archives = {path: path.read_bytes() for path in Path("data").rglob("*.lca")}
    assert len(archives) == 2
    audio.rename("moved")
    for stage in stages:
        with pytest.raises(AssertionError) as error:  # of `run`: a status that is not 0
            run(*stage)
        first, second, third = str(error.value).splitlines()[:3]
        assert "audio/dev-0.wav: no such file; 6 of 6 audio files are not there" in first
        assert "start the same ./run.sh again, without --stage" in second
        assert third.startswith("or leave out their utterances: python local/validate_data_dir.py")
    assert {path: path.read_bytes() for path in archives} == archives

    # Some are put back; where the others are is written, or they are left out.
    audio.mkdir()
    for path in Path("moved").glob("train-*"):
        path.rename(audio / path.name)
    with pytest.raises(AssertionError, match="3 of 6 audio files are not there"):
        do_both()
    scp.write_text(scp.read_text().replace("audio/", "moved/"))
    do_both()
    Path("moved/dev-2.wav").unlink()
    with pytest.raises(AssertionError, match="1 of 6 audio files are not there"):
        do_both()
    run("local/validate_data_dir.py", "--fix", "data/toy/dev")
    do_both()


def test_audio_that_moved_is_named_where_features_are_not_stored(data):
    options = FeatureOptions(8000, 20, "lhotse", on_the_fly=True)
    cuts = make_cuts(*to_manifests(data), options)
    (data.parent / "b.wav").unlink()
    with pytest.raises(UserError, match=r"b\.wav: no such file; 1 of 2 audio files"):
        BatchLoader(cuts, LoadingOptions(num_workers=0), options)
