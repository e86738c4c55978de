from pathlib import Path

import pytest

from plateau.alignment.windows import windows_of
from plateau.data.corpus import Corpus
from plateau.data.windows import WindowOptions
from plateau.decoding.files import Interval, write_ctm
from plateau.errors import UserError
from tests.spoken import FEATURES, write_set

OPTIONS = WindowOptions(frames=30, words=2, frame_stride=2)


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> Corpus:
    from plateau.data.features import make_cuts
    from plateau.data.manifests import to_manifests

    monkeypatch.chdir(tmp_path)
    found = Corpus(Path("data/toy"))
    for name in ("dev", "test"):
        cuts = make_cuts(*to_manifests(write_set(found.root / name, ["la mi so"])), FEATURES)
        found.manifest("cuts", name).parent.mkdir(exist_ok=True)
        cuts.to_file(found.manifest("cuts", name))
    return found


def test_times_of_the_corpus_or_of_an_alignment(corpus):
    aligner = Path("exp/toy/conformer_ctc/x")
    words = [Interval(0.23, 0.3, "la"), Interval(0.38, 0.5, "mi"), Interval(0.55, 0.6, "so")]
    write_ctm(aligner / "align_dev/words.ctm", {"u-00": words})
    aligned = WindowOptions(frames=30, words=2, frame_stride=2, alignment=str(aligner))
    assert windows_of(corpus, "dev", OPTIONS).index.first_frame.tolist() == [20, 35]
    assert windows_of(corpus, "dev", aligned).index.first_frame.tolist() == [23, 38]
    with pytest.raises(
        UserError, match=r"align_test/words\.ctm: no such file; align the set there"
    ):
        windows_of(corpus, "test", aligned)


def test_another_stride(corpus):
    assert windows_of(corpus, "dev", OPTIONS, 2).index.first_word.tolist() == [0, 2]
