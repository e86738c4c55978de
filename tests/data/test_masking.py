import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plateau.config import UserError
from plateau.data.masking import MaskingOptions, generator_for, masked_positions

WORDS = st.lists(st.lists(st.integers(1, 9), max_size=4), max_size=6)


@given(WORDS, st.floats(0, 1), st.sampled_from(["token", "word", "both"]), st.integers(0, 99))
def test_whole_units_are_masked_as_many_as_the_share_says(words, share, unit, seed):
    places = masked_positions(words, share, unit, random.Random(seed))
    num_tokens = sum(map(len, words))
    assert places == sorted(set(places))
    assert set(places) <= set(range(num_tokens))
    if not num_tokens:
        return
    ends = [sum(map(len, words[: n + 1])) for n in range(len(words))]
    spans = [set(range(end - len(word), end)) for end, word in zip(ends, words, strict=True)]
    spans = [span for span in spans if span]
    of_tokens = max(1, round(share * num_tokens))
    whole = [span for span in spans if span <= set(places)]
    of_words = max(1, round(share * len(spans)))
    are_words = len(whole) == of_words and set().union(*whole) == set(places)
    assert {"token": len(places) == of_tokens, "word": are_words}.get(
        unit, are_words or len(places) == of_tokens
    )


def test_every_place_is_as_likely():
    generator = random.Random(0)
    counts = Counter(
        place for _ in range(6000) for place in masked_positions([[1] * 6], 0.5, "token", generator)
    )
    assert all(abs(counts[place] - 3000) < 5 * (6000 * 0.25) ** 0.5 for place in range(6))


def shares(options, step=0, number=4000):
    generator = random.Random(1)
    return [options.draw_share(step, generator) for _ in range(number)]


def test_a_share_of_the_utterances_is_masked_whole():
    drawn = shares(MaskingOptions(full=0.25))
    assert abs(sum(share == 1 for share in drawn) / 4000 - 0.25) < 0.03
    rest = [share for share in drawn if share < 1]
    assert abs(sum(rest) / len(rest) - 0.5) < 0.02  # uniform
    assert abs(sum(share < 0.1 for share in rest) / len(rest) - 0.1) < 0.02


def test_the_share_is_fixed_or_falls():
    assert set(shares(MaskingOptions("fixed", share=0.4, full=0))) == {0.4}
    falling = MaskingOptions("decreasing", share=0.2, steps=100, full=0)
    assert shares(falling, 0, 1) == [1.0]
    assert shares(falling, 50, 1) == pytest.approx([0.6])
    assert shares(falling, 100, 1) == shares(falling, 1000, 1) == pytest.approx([0.2])
    assert falling.check_steps(100) == []
    assert falling.check_steps(50) == [
        "masking.steps is 100, and the training has 50 steps: the share that is masked ends at 0.60"
    ]


def test_an_utterance_has_the_same_draws_each_time():
    assert generator_for("a").random() == generator_for("a").random()
    draws = {generator_for("a").random(), generator_for("b").random()}
    assert len(draws | {generator_for("a", purpose="holes").random()}) == 3


def test_shares_are_shares():
    with pytest.raises(UserError, match=r"masking\.full is 2; it must be at least 0 and at most 1"):
        MaskingOptions(full=2)
