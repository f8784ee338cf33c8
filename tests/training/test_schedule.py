import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.training.optimizer import lr_at


def test_it_peaks_at_the_value_itself_a_third_of_the_way():
    """The original's 3e-3 went into a multiplier on another rate, so by its code the peak was 9e-6."""
    rates = [lr_at(step, 300, peak=3e-3) for step in range(300)]
    assert max(rates) == pytest.approx(3e-3)
    assert rates.index(max(rates)) == 99


def test_the_first_step_trains():
    """The original's first epoch ran at a learning rate of 0."""
    assert lr_at(0, 300, peak=3e-3) == pytest.approx(3e-5)


@given(st.integers(1, 500), st.floats(1e-8, 1), st.floats(0, 1))
def test_every_step_trains_and_none_above_the_peak(total, peak, warmup):
    rates = [lr_at(step, total, peak=peak, warmup=warmup) for step in range(total)]
    assert all(0 < rate <= peak * (1 + 1e-12) for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
