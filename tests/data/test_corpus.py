import pytest

from plateau.config import UserError
from plateau.data.corpus import Corpus


def corpus(tmp_path, sets: str, dev: str = "", tests: str = "") -> Corpus:
    for name in sets.split():
        (tmp_path / name).mkdir()
        (tmp_path / name / "wav.scp").touch()
    (tmp_path / "manifests").mkdir()
    return Corpus(tmp_path, dev, tuple(tests.split()))


@pytest.mark.parametrize(
    ("sets", "dev", "tests", "unused"),
    [
        ("train dev test", "dev", "dev test", ""),
        ("train test_clean test_other", "", "test_clean test_other", ""),
        ("train eval92 dev93", "dev93", "dev93 eval92", ""),  # Kaldi's wsj
        ("train valid test", "valid", "valid test", ""),
        ("train cv valid evaluation", "valid", "valid evaluation", "cv"),
        ("train train_dev eval2000", "train_dev", "train_dev eval2000", ""),
        ("train dev_other dev_clean test", "dev_clean", "dev_clean test", "dev_other"),
        ("train dev dev_b test", "dev", "dev test", "dev_b"),
        ("train heldout", "", "", "heldout"),
        ("train", "", "", ""),
    ],
)
def test_sets_by_their_names(tmp_path, sets, dev, tests, unused):
    found = corpus(tmp_path, sets)
    assert found.dev_set() == dev
    assert found.test_sets() == tests.split()
    assert found.unused_sets() == unused.split()


def test_sets_that_are_named(tmp_path):
    found = corpus(tmp_path, "train dev a b", dev="a", tests="b train")
    assert (found.dev_set(), found.test_sets()) == ("a", ["b", "train"])
    assert found.unused_sets() == ["dev"]


def test_a_set_that_is_named_and_not_there(tmp_path):
    with pytest.raises(UserError, match=r"--dev-set: .* has no set x; it has dev, train"):
        corpus(tmp_path, "train dev", dev="x").dev_set()
    with pytest.raises(UserError, match=r"--test-sets: .* has no set x, y; it has dev, train"):
        Corpus(tmp_path, "", ("x", "dev", "y")).test_sets()


def test_a_manifest_that_is_not_there(tmp_path):
    """Of a set that there is, and of one that there is not."""
    found = corpus(tmp_path, "train dev")
    with pytest.raises(UserError, match=r"has no set test; it has dev, train$"):
        found.cuts("test")
    for read, stage in ((found.recordings, 1), (found.cuts, 2)):
        with pytest.raises(UserError, match=rf"stage {stage} makes it: .* without --stage$"):
            read("train")
