"""kaldifeat against Lhotse's own filterbank, and what happens where it cannot be built."""

import os
import subprocess
import sys
from pathlib import Path

import lhotse
import pytest
import torch

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("samples", [401, 16000, 23456])
def test_agrees_with_lhotse(rate, samples):
    kaldifeat = pytest.importorskip("kaldifeat")
    signal = torch.randn(samples, generator=torch.Generator().manual_seed(samples)) * 0.1
    options = kaldifeat.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = rate
    options.frame_opts.snip_edges = False
    options.mel_opts.num_bins = 80
    options.mel_opts.high_freq = -400
    ours = kaldifeat.Fbank(options)(signal)  # (T, 80)
    config = lhotse.FbankConfig(sampling_rate=rate, num_filters=80)
    theirs = torch.as_tensor(lhotse.Fbank(config).extract(signal, rate))  # (T, 80)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-3)  # log energies, float32


def test_without_a_compiler_another_takes_its_place(tmp_path):
    environment = {**os.environ, "CXX": "/nonexistent/c++", "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, str(ROOT / "utils/build_kaldifeat.py")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 1
    assert "no C++ compiler (/nonexistent/c++)" in result.stderr
    assert "kaldi-native-fbank takes its place" in result.stderr
    assert len(result.stderr.splitlines()) <= 3
    assert list(tmp_path.iterdir()) == []
