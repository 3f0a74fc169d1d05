"""The buttons and selectors of a live run, as widgets that keyboards and screen readers reach."""

from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets

BUSY = "a busy worker"
BUTTONS = {
    "start": ("Start", "Start the run, or start it again"),
    "kill": ("Kill", "SIGKILL: it ends at once and cannot clean up"),
    "pause": ("Pause", "SIGSTOP: it stands still and reports nothing"),
    "resume": ("Resume", "SIGCONT: all that are paused go on"),
    "add": ("Add a worker", "Start one more process"),
    "stop": ("Stop", "End the run"),
}
WRAP = {"flex_flow": "row wrap", "align_items": "center"}


class Controls:
    """A button for each order, and whom it is for; `tell` is called with both."""

    def __init__(self, tell: Callable[[str, str], None]) -> None:
        self.whom = ipywidgets.Dropdown(
            description="whom:",
            tooltip="Whom Kill and Pause are for",
            style={"description_width": "initial"},
            layout={"width": "14em"},
        )
        self.buttons: dict[str, ipywidgets.Button] = {}
        for order, (label, help_) in BUTTONS.items():
            self.buttons[order] = button = ipywidgets.Button(
                description=label, tooltip=help_, layout={"width": "auto"}
            )
            button.on_click(lambda _, order=order: tell(order, self.whom.value))
        self.box = ipywidgets.HBox([*self.buttons.values(), self.whom], layout=WRAP)
        self.show([], running=False)

    def show(self, names: Sequence[str], running: bool) -> None:
        """Offer these processes, and enable what can be done now."""
        options = (BUSY, *names, "redis")
        if self.whom.options != options:
            before: Any = self.whom.value
            self.whom.options = options  # chooses the first
            self.whom.value = before if before in options else BUSY
        for order, button in self.buttons.items():
            button.disabled = running == (order == "start")
