import numpy as np
import pytest
from sklearn.datasets import load_digits

from plateau.config import UserError
from plateau.data.sequence_check import check_corpus
from plateau.data.sequences import SequenceSet, read_about


def test_each_image_is_in_one_set_with_its_label(digits, tmp_path):
    digits.main(tmp_path)
    images, labels = load_digits(return_X_y=True)
    seen = []
    for name, size in (("train", 1437), ("dev", 180), ("test", 180)):
        made = SequenceSet(tmp_path / name)
        assert (len(made), made.dim) == (size, 64) and set(made.lengths) == {1}
        assert set(made.texts) == set("0123456789")
        for image in made:
            number = int(image.id.removeprefix("digit-"))
            assert np.array_equal(16 * image.values[0], images[number])
            assert image.text == str(labels[number])
            seen.append(number)
    assert sorted(seen) == list(range(1797))
    assert read_about(tmp_path).shape == (8, 8)
    assert list(check_corpus(tmp_path)) == []


def test_the_split_is_always_the_same(digits, tmp_path):
    digits.main(tmp_path / "one")
    digits.main(tmp_path / "two")
    for name in ("train", "dev", "test"):
        one, two = (tmp_path / part / name / "sequences.jsonl" for part in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()


def test_mistakes_are_told(digits, tmp_path):
    with pytest.raises(UserError, match="leave out --corpus-dir"):
        digits.main(tmp_path / "data", tmp_path)
    (tmp_path / "config.yaml").write_text("corpus: {seed: 1}\n")
    with pytest.raises(UserError, match="seed"):
        digits.main(tmp_path / "data", config=tmp_path / "config.yaml")
    assert not (tmp_path / "data").exists()
