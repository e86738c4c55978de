import math

import pytest

from plateau.training.schedule import ScheduleOptions, learning_rate


@pytest.mark.parametrize("step", [1, 7, 100, 101, 250, 10_000])
def test_noam_is_equation_3_of_vaswani_scaled_to_its_peak(step):
    options = ScheduleOptions("noam", peak=0.5, warmup_steps=100)
    equation = min(step**-0.5, step * 100**-1.5)  # without the model's dimension
    assert learning_rate(options, step, progress=0.9) == pytest.approx(0.5 * equation * 100**0.5)


def test_cosine_rises_in_a_line_and_falls_with_the_cosine_of_the_progress():
    options = ScheduleOptions("cosine", peak=2.0, warmup_steps=4)
    rates = [learning_rate(options, step, progress=0.0) for step in range(1, 7)]
    assert rates == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0, 2.0])
    falling = [learning_rate(options, 100, progress) for progress in (0, 1 / 3, 1 / 2, 2 / 3, 1)]
    assert falling == pytest.approx([2.0, 1.5, 1.0, 0.5, 0.0])
    both = learning_rate(options, 3, progress=0.1)
    assert both == pytest.approx(1.5 * (1 + math.cos(0.1 * math.pi)) / 2)


def test_processes_that_hear_utterances_twice_do_not_rise_again():
    options = ScheduleOptions("cosine", peak=2.0, warmup_steps=4)
    assert learning_rate(options, 100, progress=1.2) == 0.0


@pytest.mark.parametrize("kind", ["cosine", "noam"])
def test_without_warmup_the_first_step_has_the_peak(kind):
    options = ScheduleOptions(kind, peak=0.25, warmup_steps=0)
    assert learning_rate(options, 1, progress=0.0) == pytest.approx(0.25)
