"""A number that the reader commits to before a run, to be compared with the measurement."""

import math
from collections.abc import Mapping
from typing import Any

import ipywidgets
from IPython.display import Markdown

from studyguide.errors import UsageError
from studyguide_course.lesson import table

BAR = 24  # characters of the longest bar


class Guess:
    """A slider and a button that locks it.

    A reader who neither moves the slider, nor sets `value`, nor locks has not guessed: what is
    compared with the measurement is then the default, under that name. If the ends of the slider
    and the default are `int`, so is the guess.

    Raises UsageError if the slider cannot stand at `high` or at `default`.
    """

    def __init__(self, question: str, low: float, high: float, default: float, unit: str) -> None:
        self.question, self.unit = question, unit
        self._locked: float | None = None
        self.guessed = False  # whether the reader has chosen or confirmed a number
        whole = all(isinstance(number, int) for number in (low, high, default))
        step = 1.0 if whole else _step(low, high, default)
        self.slider = ipywidgets.FloatSlider(
            default,
            min=low,
            max=high,
            step=step,
            readout_format=".0f" if whole else ".2f",
            description=f"{question} ({unit})",
            style={"description_width": "initial"},
            layout={"width": "70%"},
        )
        self.button = ipywidgets.Button(description="Lock my guess", icon="lock")
        self.slider.observe(self._confirm, "value")
        self.button.on_click(self._confirm)
        self.button.on_click(lambda _: self.lock())

    def _confirm(self, _: object) -> None:
        if self._locked is None:
            self.guessed = True

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = ipywidgets.HBox([self.slider, self.button])._repr_mimebundle_(**options)
        said = f"{self.question}: {self.value:g} {self.unit} is the default"
        return {**bundle, "text/plain": said}

    @property
    def value(self) -> float:
        """The guess; it can be set until it is locked."""
        return float(self.slider.value if self._locked is None else self._locked)

    @value.setter
    def value(self, value: float) -> None:
        if self._locked is not None:
            raise UsageError(
                f"The guess is locked at {self._locked:g} {self.unit}, because the run has started",
                "To guess again, run the cell of the guess again",
            )
        if not self.slider.min <= value <= self.slider.max:
            span = f"{self.slider.min:g} to {self.slider.max:g} {self.unit}"
            raise UsageError(f"{value:g} is not among the guesses", f"Choose from {span}")
        self.slider.value = value
        self.guessed = True

    def lock(self) -> None:
        """Commit to the guess: from now on it cannot be changed."""
        self._locked = self.value
        self.slider.disabled = self.button.disabled = True
        self.button.description = "Locked"

    def compare(
        self, measured: float, models: Mapping[str, float], causes: Mapping[float, str]
    ) -> Markdown:
        """Compare the guess with the measurement, and name the likely cause of its error.

        `models` are predictions by their name. A key of `causes` is the greatest error, guess -
        measured, of which its text is the likely cause; the last is `inf`.
        """
        self.lock()
        mine = "your guess, locked" if self.guessed else "the default; you did not guess"
        found = {mine: self.value, **models, "**measured**": measured}
        longest = max(0.0, *found.values()) or 1.0
        rows = [
            (name, f"{value:.3g}", f"{value - measured:+.2g}", "█" * round(BAR * value / longest))
            for name, value in found.items()
        ]
        cause = causes[min(bound for bound in causes if self.value - measured <= bound)]
        facts = table((self.question, self.unit, "off by", ""), rows)
        whose = "Your guess" if self.guessed else "The default"
        return Markdown(f"{facts.data}\n\n**{whose} against the measurement:** {cause}")


def _step(low: float, high: float, default: float) -> float:
    """About a hundredth of the slider, 1, 2 or 5 times a power of ten.

    A browser moves a slider that stands between two steps to one of them, without a word.
    """
    power = 10.0 ** math.floor(math.log10((high - low) / 100))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= (high - low) / 100 * (1 - 1e-9))
    for value in (high, default):
        if abs((value - low) / step - round((value - low) / step)) > 1e-6:
            raise UsageError(
                f"A slider from {low:g} to {high:g} in steps of {step:g} cannot stand at {value:g}",
                "Choose other ends or another default",
            )
    return step
