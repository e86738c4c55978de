import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from lhotse import CutSet

from plateau.data.features import make_cuts
from plateau.data.manifests import to_manifests
from plateau.data.tokens import LexiconTokenizer
from plateau.data.window_loading import WindowLoader
from plateau.data.windows import PADDING, WindowOptions, Windows
from plateau.errors import UserError
from plateau.training.spec_augment import SpecAugmentOptions, make_spec_augment, masked
from tests.spoken import FEATURES, LEAD, PAUSE, TONE, WORDS, make_set, write_set

TOKENIZER = LexiconTokenizer(
    ["<blk>", "<unk>", *WORDS], {word: [word] for word in WORDS}, phones=False
)
TEXTS = ["la", "la mi so", "mi so la ti la mi so", "ti ti la mi", "so la", "ti mi so la ti ti"]
OPTIONS = WindowOptions(frames=10, words=3, frame_stride=4, batch_size=4)


@pytest.fixture(scope="module")
def cuts(tmp_path_factory) -> CutSet:
    return make_set(tmp_path_factory.mktemp("windows"), TEXTS)


def make_loader(cuts, options=OPTIONS, **keywords) -> WindowLoader:
    return WindowLoader(Windows(cuts, options, name="train"), FEATURES, TOKENIZER, **keywords)


def ids(batches) -> list[list[str]]:
    return [batch.ids for batch in batches]


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_has_each_window_once(cuts, shuffle, num_workers):
    loader = make_loader(cuts, shuffle=shuffle, num_workers=num_workers)
    windows = Windows(cuts, OPTIONS)
    for epoch in (0, 1):
        batches = list(loader.batches(epoch))
        found = sorted(id for batch in batches for id in batch.ids)
        assert found == sorted(windows[n].cut.id for n in range(len(windows)))
        assert sum(batch.size for batch in batches) == loader.total_size == 14
        assert len(batches) == loader.num_batches() == 4


def test_the_order_depends_on_seed_and_epoch_only_and_skipped_batches_are_the_first(cuts):
    def order(seed, epoch, skip=0, num_workers=0):
        torch.manual_seed(skip)
        loader = make_loader(cuts, shuffle=True, seed=seed, num_workers=num_workers)
        next(loader.batches(7))  # an epoch that was begun
        return ids(loader.batches(epoch, skip))

    whole = order(1, 2)
    for skip, num_workers in ((0, 2), (1, 0), (2, 2), (4, 0), (9, 0)):
        assert order(1, 2, skip, num_workers) == whole[skip:]
    assert order(1, 3) != whole
    assert order(2, 2) != whole
    plain = make_loader(cuts)
    assert ids(plain.batches(0)) == ids(plain.batches(5))


def test_nothing_is_read_to_shuffle_or_skip(cuts, monkeypatch):
    loader = make_loader(cuts, shuffle=True)
    read, get = [], Windows.__getitem__

    def counted(self, number):
        read.append(number)
        return get(self, number)

    monkeypatch.setattr(Windows, "__getitem__", counted)
    batches = loader.batches(3, skip=2)
    assert read == []
    assert len(next(batches).ids) == len(read) == 4


def test_windows_of_similar_length_go_together(tmp_path):
    many = make_set(tmp_path, ["la", "la mi so ti"] * 12)
    options = dataclasses.replace(OPTIONS, words=4)
    for batch in make_loader(many, options, shuffle=True).batches():
        assert len(set(batch.lengths.tolist())) == 1


def test_processes_share_an_epoch(cuts):
    options = dataclasses.replace(OPTIONS, batch_size=2)  # 7 batches
    shares = [
        ids(make_loader(cuts, options, shuffle=True, rank=rank, world_size=3).batches(1))
        for rank in range(3)
    ]
    assert list(map(len, shares)) == [2, 2, 2]
    found = [id for share in shares for batch in share for id in batch]
    assert len(found) == len(set(found)) >= 11
    # To look at, all are looked at.
    shares = [
        ids(make_loader(cuts, options, rank=rank, world_size=3).batches()) for rank in range(3)
    ]
    assert sorted(id for share in shares for batch in share for id in batch) == sorted(
        id for batch in make_loader(cuts).batches() for id in batch.ids
    )
    few = make_loader(cuts, dataclasses.replace(OPTIONS, batch_size=8), shuffle=True, world_size=3)
    with pytest.raises(UserError, match="14 windows are fewer batches than there are processes, 3"):
        few.batches()


@pytest.mark.parametrize("side", ["right", "left"])
def test_words_features_and_spans(cuts, side):
    loader = make_loader(cuts, dataclasses.replace(OPTIONS, side=side))
    batch = loader.some([0, 1, 5, 6])
    assert sorted(batch.ids) == ["u-00:1", "u-01:1", "u-02:4", "u-02:5"]
    of_id = {cut.id: cut.load_features() for cut in cuts}
    for row, id in enumerate(batch.ids):
        utterance, _, first = id.partition(":")
        texts = TEXTS[int(utterance[2:])].split()[int(first) - 1 :][:3]
        assert batch.texts[row] == " ".join(texts)
        own = [TOKENIZER.tokens.index(word) for word in texts]
        padding = [PADDING] * (3 - len(own))
        expected = own + padding if side == "right" else padding + own
        assert batch.words[row].tolist() == expected
        # Steps of 40 ms; a tone is 2.5 of them, one begins every 3.75.
        step = 100 * (TONE + PAUSE) / 4
        spans = [(n * step, n * step + 2.5) for n in range(len(own))]
        nothing = [(0.0, 0.0)] * len(padding)
        wanted = spans + nothing if side == "right" else nothing + spans
        np.testing.assert_allclose(batch.spans[row].numpy(), wanted, atol=1e-4)
        frame = round(100 * (LEAD + (int(first) - 1) * (TONE + PAUSE)))
        features = of_id[utterance][frame : frame + 40]
        assert int(batch.lengths[row]) == len(features)
        np.testing.assert_array_equal(batch.features[row, : len(features)].numpy(), features)
    assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)


def test_masks_of_spec_augment_leave_the_words(cuts):
    torch.manual_seed(0)
    batch = make_loader(cuts).some([1, 2])
    options = SpecAugmentOptions(p=1, features_mask_size=9, frames_mask_size=9, time_warp_factor=0)
    found = masked(batch, make_spec_augment(options))
    assert not torch.equal(found.features, batch.features)
    assert torch.equal(found.words, batch.words) and found.size == 2
    assert found.to(torch.device("cpu")).ids == batch.ids


def test_features_that_are_computed_on_the_way(tmp_path):
    options = dataclasses.replace(FEATURES, on_the_fly=True)
    cuts = make_cuts(*to_manifests(write_set(tmp_path / "set", ["la mi so ti"])), options)
    batch = WindowLoader(Windows(cuts, OPTIONS), options, TOKENIZER).some([0, 1])
    assert batch.lengths.tolist() == [40, 40] and batch.features.isfinite().all()


@pytest.mark.parametrize("num_workers", [0, 1])
def test_features_that_cannot_be_read_are_named(tmp_path, num_workers):
    cuts = make_set(tmp_path, TEXTS[:3])
    (archive,) = Path(tmp_path).glob("fbank*")
    content = bytearray(archive.read_bytes())
    content[-100] ^= 1
    archive.write_bytes(content)
    with pytest.raises(
        UserError, match=r"utterance 'u-02:\d': its features cannot be read"
    ) as error:
        list(make_loader(cuts, num_workers=num_workers).batches())
    assert "checksum" in str(error.value)


def test_words_of_several_tokens_are_refused(cuts):
    letters = LexiconTokenizer(
        ["<blk>", "<unk>", *"ailmost"], {word: list(word) for word in WORDS}, phones=False
    )
    loader = WindowLoader(Windows(cuts, OPTIONS), FEATURES, letters)
    with pytest.raises(UserError, match=r"not a token each; windows take tokens\.kind=word"):
        next(loader.batches())
