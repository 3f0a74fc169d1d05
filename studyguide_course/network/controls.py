"""The controls of a live run, as widgets that keyboards and screen readers reach."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

BUSY = "a busy worker"
BUTTONS = {
    "start": ("Start", "Start the run, or start it again"),
    "kill": ("Kill", "SIGKILL: it ends at once and cannot clean up"),
    "pause": ("Pause", "SIGSTOP: it stands still and reports nothing"),
    "resume": ("Resume", "SIGCONT: all that are paused go on"),
    "cut": ("Cut off", "A partition: it works on, and nothing gets through to it or from it"),
    "heal": ("Heal", "All that are cut off are connected again; what was held back arrives"),
    "add": ("Add a worker", "Start one more process"),
    "stop": ("Stop", "End the run"),
}
SLIDERS = {  # what a slider shows, its last step, how much of the attribute a step is, its help
    "latency_s": ("latency (ms)", 200, 0.001, "How long each message is under way"),
    "jitter_s": ("jitter (ms)", 200, 0.001, "Up to so much longer, by chance"),
    "loss": ("loss (%)", 20, 0.01, "Messages that are lost, and their connection with them"),
}
WRAP = {"flex_flow": "row wrap", "align_items": "center"}
WHOLE: Any = {"description_width": "initial"}


class Controls:
    """A button for each order, whom it is for, and sliders for the network, in `box`.

    `tell` is called with an order and its target, `change` with an attribute of the network.
    """

    def __init__(self, tell: Callable[[str, str], None], change: Callable[..., None]) -> None:
        self.whom = ipywidgets.Dropdown(
            description="whom:",
            tooltip="Whom Kill, Pause and Cut off are for",
            style=WHOLE,
            layout={"width": "14em"},
        )
        self.buttons: dict[str, ipywidgets.Button] = {}
        for order, (label, help_) in BUTTONS.items():
            self.buttons[order] = button = ipywidgets.Button(
                description=label, tooltip=help_, layout={"width": "auto"}
            )
            button.on_click(lambda _, order=order: tell(order, self.whom.value))
        self.sliders: dict[str, ipywidgets.IntSlider] = {}
        for name, (label, most, _, help_) in SLIDERS.items():
            self.sliders[name] = slider = ipywidgets.IntSlider(
                max=most, description=label, tooltip=help_, style=WHOLE, layout={"width": "19em"}
            )
            slider.observe(lambda _, name=name: change(**{name: self.quality()[name]}), "value")
        rows = ([*self.buttons.values(), self.whom], [*self.sliders.values()])
        self.box = ipywidgets.VBox([ipywidgets.HBox(row, layout=WRAP) for row in rows])
        self.show([], running=False)

    def quality(self) -> dict[str, float]:
        """What the sliders say, as attributes of a network."""
        return {name: slider.value * SLIDERS[name][2] for name, slider in self.sliders.items()}

    def slide(self, **quality: float) -> None:
        """Move the sliders to these values."""
        for name, value in quality.items():
            self.sliders[name].value = round(value / SLIDERS[name][2])

    def show(self, names: Sequence[str], running: bool) -> None:
        """Offer these processes, and enable what can be done now."""
        options = (BUSY, *names, "redis")
        if self.whom.options != options:
            before = self.whom.value
            self.whom.options = options  # chooses the first
            self.whom.value = before if before in options else BUSY
        for order, button in self.buttons.items():
            button.disabled = running == (order == "start")
