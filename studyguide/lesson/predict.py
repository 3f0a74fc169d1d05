"""A number that the reader commits to before a run, and lays over the measurement afterwards."""

from collections.abc import Mapping
from typing import Any

import ipywidgets
from IPython.display import Markdown

from studyguide.errors import UsageError
from studyguide.lesson import table

BAR = 24  # characters


class Guess:
    """A slider and a button that locks it; who touches neither has guessed the default.

    Parameters
    ----------
    question : str
        What is guessed.
    low, high, default : float
        Ends of the slider and where it stands; if all are whole, so is the guess.
    unit : str
        In which it is measured.
    """

    def __init__(self, question: str, low: float, high: float, default: float, unit: str) -> None:
        self.question, self.unit = question, unit
        self._locked: float | None = None
        whole = all(isinstance(number, int) for number in (low, high, default))
        self.slider = ipywidgets.FloatSlider(
            default,
            min=low,
            max=high,
            step=1 if whole else (high - low) / 100,
            readout_format=".0f" if whole else ".2f",
            description=f"{question} ({unit})",
            style={"description_width": "initial"},
            layout={"width": "70%"},
        )
        self.button = ipywidgets.Button(description="Lock my guess", icon="lock")
        self.button.on_click(lambda _: self.lock())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        bundle = ipywidgets.HBox([self.slider, self.button])._repr_mimebundle_(**options)
        said = f"{self.question}: {self.value:g} {self.unit}, if you do not say otherwise"
        return {**bundle, "text/plain": said}

    @property
    def value(self) -> float:
        """The guess; it can be set until it is locked."""
        return float(self.slider.value if self._locked is None else self._locked)

    @value.setter
    def value(self, value: float) -> None:
        if self._locked is not None:
            raise UsageError(
                f"The guess is locked at {self._locked:g} {self.unit}, for the run has begun",
                "To guess anew, run the cell of the guess again",
            )
        if not self.slider.min <= value <= self.slider.max:
            span = f"{self.slider.min:g} to {self.slider.max:g} {self.unit}"
            raise UsageError(f"{value:g} is not among the guesses", f"Choose from {span}")
        self.slider.value = value

    def lock(self) -> None:
        """Commit to the guess: from now on it cannot be changed."""
        self._locked = self.value
        self.slider.disabled = self.button.disabled = True
        self.button.description = "Locked"

    def compare(
        self, measured: float, models: Mapping[str, float], causes: Mapping[float, str]
    ) -> Markdown:
        """Lay the guess over the measurement, and name the likely cause of its error.

        Parameters
        ----------
        measured : float
        models : mapping of str to float
            What each model says, by its name.
        causes : mapping of float to str
            The likely cause of an error, guess - measured, up to this one; the last is `inf`.
        """
        self.lock()
        found = {"your guess, locked": self.value, **models, "**measured**": measured}
        longest = max(0.0, *found.values()) or 1.0
        rows = [
            (name, f"{value:.3g}", f"{value - measured:+.2g}", _bar(value / longest))
            for name, value in found.items()
        ]
        cause = causes[min(bound for bound in causes if self.value - measured <= bound)]
        facts = table((self.question, self.unit, "off by", ""), rows)
        return Markdown(f"{facts.data}\n\n**Your guess against the measurement:** {cause}")


def _bar(part: float) -> str:
    """A bar of text, as long as the part, from 0 to 1, says."""
    return "█" * round(BAR * part)
