"""Padding of label sequences."""

from plateau.graphs.labels import pad


def test_sequences_are_padded_with_blank_or_another_value():
    assert pad([[1, 2], [], [3]]).tolist() == [[1, 2], [0, 0], [3, 0]]
    assert pad([[1, 2], [], [3]], value=-1).tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert pad([[], []]).shape == (2, 0)
