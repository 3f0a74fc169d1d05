"""A guess can be changed until the run starts, and is compared with the measurement."""

from collections.abc import Callable
from math import inf

import pytest

from studyguide.errors import UsageError
from studyguide_course.predict import Guess


@pytest.fixture
def guess() -> Guess:
    return Guess("speed-up", 0.0, 10.0, 4.0, "times")


def compared(guess: Guess) -> str:
    return str(guess.compare(6.0, {}, {inf: "high"}).data)


def test_guess_that_nobody_touches_is_the_default_and_is_called_so(guess: Guess) -> None:
    guess.lock()
    assert guess.value == 4
    assert "| the default; you did not guess | 4 |" in compared(guess)
    assert "**The default against" in compared(guess)


def test_late_message_of_the_browser_is_not_a_guess(guess: Guess) -> None:
    guess.lock()
    guess.slider.value = 2
    assert "| the default; you did not guess | 4 |" in compared(guess)


@pytest.mark.parametrize(
    "commit",
    [
        lambda guess: setattr(guess.slider, "value", 5),
        lambda guess: setattr(guess, "value", 5),
        lambda guess: setattr(guess, "value", 4),
        lambda guess: guess.button.click(),
    ],
)
def test_reader_who_moves_sets_or_locks_has_guessed(
    guess: Guess, commit: Callable[[Guess], None]
) -> None:
    commit(guess)
    assert "| your guess, locked |" in compared(guess)
    assert "**Your guess against" in compared(guess)


@pytest.mark.parametrize(("low", "high", "default"), [(0.0, 12.0, 10.0), (0.5, 4.0, 1.5)])
def test_slider_can_stand_at_its_default_and_at_its_ends(
    low: float, high: float, default: float
) -> None:
    step = Guess("speed-up", low, high, default, "times").slider.step
    for value in (high, default):
        assert (value - low) / step == pytest.approx(round((value - low) / step))
    assert 50 <= (high - low) / step <= 100


def test_slider_that_cannot_stand_at_its_default_is_refused() -> None:
    with pytest.raises(UsageError, match=r"steps of 0\.2 cannot stand at 9\.95"):
        Guess("speed-up", 0.0, 12.0, 9.95, "times")


def test_guess_is_changed_by_slider_or_by_program(guess: Guess) -> None:
    guess.slider.value = 3
    assert guess.value == 3
    guess.value = 2
    assert guess.slider.value == 2


def test_button_locks_the_guess(guess: Guess) -> None:
    guess.button.click()
    assert guess.slider.disabled
    with pytest.raises(UsageError, match="locked at 4 times"):
        guess.value = 2
    guess.slider.value = 2  # a late message from the browser
    assert guess.value == 4


def test_guess_outside_the_slider_is_refused(guess: Guess) -> None:
    with pytest.raises(UsageError, match="0 to 10 times"):
        guess.value = 11
    assert guess.value == 4


def test_whole_ends_make_whole_steps() -> None:
    assert Guess("lost", 0, 9, 1, "tiles").slider.step == 1


def test_reader_without_widgets_sees_the_question_and_the_default(guess: Guess) -> None:
    bundle = guess._repr_mimebundle_()
    assert bundle["text/plain"] == "speed-up: 4 times is the default"
    assert "application/vnd.jupyter.widget-view+json" in bundle


@pytest.mark.parametrize(("measured", "cause"), [(6.0, "low"), (4.1, "close"), (1.0, "high")])
def test_error_has_its_likely_cause(guess: Guess, measured: float, cause: str) -> None:
    text = guess.compare(measured, {"Amdahl": 3.0}, {-1.0: "low", 1.0: "close", inf: "high"}).data
    assert text.endswith(f"measurement:** {cause}")
    assert f"| **measured** | {measured:.3g} | +0 |" in text
    assert f"| Amdahl | 3 | {3 - measured:+.2g} |" in text


def test_comparing_locks(guess: Guess) -> None:
    guess.compare(0.0, {}, {inf: ""})
    with pytest.raises(UsageError):
        guess.value = 2
