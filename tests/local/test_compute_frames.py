import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.kaldi import Utterance, write_data_dir
from plateau.data.sequences import SequenceSet

RATE = 8000


def test_every_set_of_a_speech_corpus_is_written(load_script, tmp_path, capsys):
    data = tmp_path / "toy"
    for name, seconds in (("train", 0.5), ("dev", 0.25), ("test_a", 1.0)):
        samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * RATE))
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
        audio = str(tmp_path / f"{name}.wav")
        write_data_dir(data / name, [Utterance(f"spk-{name}", "spk", "a b", audio)])
    load_script("make_manifests").main(data)
    config = tmp_path / "config.yaml"
    config.write_text("frames: {frame_length: 100, sampling_rate: 8000}\n")
    capsys.readouterr()
    load_script("compute_frames").main(data, config)
    lengths = {
        name: SequenceSet(data / "frames" / name).lengths for name in ("train", "dev", "test_a")
    }
    assert lengths == {"train": [40], "dev": [20], "test_a": [80]}
    assert f"{data}/frames/dev: 1 sequences, 0.00 h" in capsys.readouterr().out
    load_script("check_sequences").main(data / "frames")
    # and the speech corpus has the sets that it had
    load_script("make_manifests").main(data)

    config.write_text("frames: {frame_length: 0}\n")
    with pytest.raises(UserError, match=r"frames\.frame_length is 0; it must be"):
        load_script("compute_frames").main(data, config)
