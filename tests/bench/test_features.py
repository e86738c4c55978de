import numpy as np
import pytest
import torch

from bench.features import in_batches, largest_difference, main, one_by_one, synthesise
from plateau.config import UserError
from plateau.data.features import FeatureOptions, make_extractor

RATE = 16000


def test_utterances_are_the_same_each_time_and_last_as_asked():
    utterances = synthesise(40, RATE)
    durations = [samples.shape[1] / RATE for samples in utterances]
    assert 40 <= sum(durations) < 43
    assert all(3 <= duration <= 15 for duration in durations)
    assert all(np.abs(samples).max() < 1 for samples in utterances)
    again = synthesise(40, RATE)
    assert all(np.array_equal(a, b) for a, b in zip(utterances, again, strict=True))


def test_both_backends_agree_utterance_for_utterance_and_kaldifeat_in_batches_too():
    pytest.importorskip("kaldifeat")
    utterances = synthesise(10, RATE)
    kaldifeat, lhotse = (
        make_extractor(FeatureOptions(backend=backend)) for backend in ("kaldifeat", "lhotse")
    )
    with torch.no_grad():
        alone = one_by_one(kaldifeat, utterances, RATE)
        batched = in_batches(kaldifeat, utterances, RATE)
        peer = one_by_one(lhotse, utterances, RATE)
    assert len(batched) == len(utterances)
    assert largest_difference(alone, batched) < 1e-5
    assert largest_difference(alone, peer) < 1e-2


def test_batches_hold_ten_minutes(monkeypatch):
    monkeypatch.setattr("bench.features.BATCH_SECONDS", 8.0)
    utterances = [np.zeros((1, 3 * RATE), np.float32)] * 7
    sizes = []

    class Extractor:
        def extract_batch(self, batch, sampling_rate):
            sizes.append(len(batch))
            return batch

    assert len(in_batches(Extractor(), utterances, RATE)) == 7
    assert sizes == [3, 3, 1]


def test_largest_difference():
    ours = [np.zeros((2, 3)), np.ones((4, 3))]
    theirs = [np.zeros((2, 3)), np.ones((4, 3))]
    theirs[1][2, 1] = 0.25
    assert largest_difference(ours, theirs) == 0.75
    with pytest.raises(UserError, match="frames"):
        largest_difference(ours, [np.zeros((2, 3)), np.ones((5, 3))])


def test_the_table_has_both_ways(capsys):
    pytest.importorskip("kaldifeat")
    main(seconds=3, repetitions=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.count("x RT") for line in lines[-2:]] == [2, 2]
    with pytest.raises(UserError):
        main(repetitions=0)
