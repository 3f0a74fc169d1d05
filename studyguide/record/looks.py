"""How charts look: colours, hatches, signs and sizes, and the figure that all are drawn on.

This module and `charts` alone import matplotlib, and of pyplot with its global state they use
nothing.
"""

import base64
import io
from collections.abc import Sequence
from math import ceil
from typing import Any

from matplotlib import style
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from studyguide import __version__

# Kind of bar -> (legend, colour, hatch, ink of the hatch): the same in every chart, and never
# colour alone. Colours: Okabe and Ito, https://jfly.uni-koeln.de/color/. Shares of time are piled
# up in this order, so that blurring stands on the ground line and waiting comes last.
LOOKS = {
    "blur": ("blur", "#0072B2", "", "white"),
    "load": ("load", "#56B4E9", "////", "white"),
    "split": ("split", "#F0E442", "....", "#7A7000"),
    "enqueue": ("enqueue", "#CC79A7", "\\\\\\\\", "white"),
    "transfer": ("transfer", "#E69F00", "xxxx", "white"),
    "assemble": ("assemble", "#009E73", "||||", "white"),
    "save": ("save", "#D55E00", "----", "white"),
    "start": ("process start", "#B9B9B9", "+++", "white"),
    "held": ("tile held until death", "white", "xxxx", "#444444"),
    "backoff": ("wait: back-off", "#EEEEEE", "oo", "#ABABAB"),
    "full": ("wait: queue full", "#EEEEEE", "\\\\", "#ABABAB"),
    "silence": ("wait: silence", "#E2E2E2", "**", "#8A8A8A"),
    "wait": ("wait: queue empty", "#F1F1F1", "..", "#D6D6D6"),
}
# Fault -> (sign, legend, several of them).
FAULTS = {
    "death": ("\u2716", "thread died", "dead threads"),
    "reclaim": ("\u2192", "tile reclaimed", "reclaims"),
    "retry": ("\u21bb", "retry after attempt n", "retries"),
    "duplicate": ("\u271a", "tile done twice", "duplicates"),
    "dead": ("\u25c6", "dead letter", "dead letters"),
    "lost": ("\u25cb", "tile lost", "lost tiles"),
    "failed": ("\u25bc", "image failed", "failed images"),
}

INK, GREY, FAINT = "#1A1A1A", "#5F5F5F", "#E4E4E4"
HALO = [withStroke(linewidth=2.5, foreground="white")]
PATH: Any = {"color": "black", "linewidth": 1.6, "solid_joinstyle": "miter"}
SIGN: Any = {"size": 12, "weight": "bold", "ha": "center", "va": "center", "path_effects": HALO}
DOT: Any = {"color": INK, "linestyle": ""}  # a sign as the marker of a line
OWN: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.labelcolor": GREY,
    "xtick.labelcolor": GREY,
    "ytick.labelcolor": INK,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "legend.borderpad": 0.8,
}
STYLE = ["default", OWN]  # whatever style the reader has set
DPI = 110
WIDTH, RIGHT, TOP = 9.0, 0.55, 0.75  # inches, and so is the next line
STRIP, GAP, AXIS, LEGEND_ROW = 0.6, 0.16, 0.55, 0.23
LEGEND_COLUMNS = 5


class Chart(Figure):
    """A figure with alt text, which a notebook shows once, as the value of a cell's last line.

    Parameters
    ----------
    height : float
        Inches.
    title, facts : str
        Head lines, computed from the data; together they are the alt text.
    name : str
        The plain-text form: the same for each run of the same work, so that tests can compare it.
    """

    def __init__(self, height: float, title: str, facts: str, name: str) -> None:
        super().__init__(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
        self.alt, self.name = f"{title}; {facts}.", name
        self.logs: list[str] = []  # names of the logs that it is drawn from
        self.text(0.2 / WIDTH, 1 - 0.16 / height, title, size=12.5, weight="bold", va="top")
        self.text(0.2 / WIDTH, 1 - 0.43 / height, facts, color=GREY, va="top", wrap=True)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        image = base64.b64encode(self.png()).decode()
        return {"image/png": image, "text/plain": self.name}, {"image/png": {"alt": self.alt}}

    def png(self) -> bytes:
        """The picture; its metadata has its alt text, our version and the names of its logs."""
        buffer, metadata = io.BytesIO(), {"Description": self.alt}
        metadata["Software"] = f"studyguide {__version__}"
        if self.logs:
            metadata["Source"] = " ".join(self.logs)
        with style.context(STYLE):
            self.savefig(buffer, format="png", dpi=DPI, metadata=metadata)
        return buffer.getvalue()

    @staticmethod
    def around(tall: float, entries: int) -> float:
        """Inches of a chart around axes of `tall` inches, with so many entries in its legend."""
        return TOP + tall + AXIS + LEGEND_ROW * ceil(entries / LEGEND_COLUMNS)

    def key(self, handles: Sequence[Artist]) -> None:
        """Explain signs and colours at the bottom."""
        self.legend(handles=handles, ncols=LEGEND_COLUMNS, loc="lower left", handleheight=1.1)

    def place(self, names: Sequence[str], top: float, height: float) -> Axes:
        """Add axes below `top` (inches), with room for names on their left."""
        left, total = 0.4 + 0.075 * max(map(len, names)), self.get_figheight()
        corner = (left / WIDTH, 1 - (top + height) / total)
        axes = self.add_axes((*corner, 1 - (left + RIGHT) / WIDTH, height / total), axisbelow=True)
        axes.spines[:].set_visible(False)
        axes.grid(axis="x", color=FAINT, linewidth=0.8)
        axes.tick_params(length=0)
        return axes


def paint(kind: str) -> dict[str, Any]:
    """What matplotlib needs to fill an area with the look of a kind."""
    _, colour, hatch, ink = LOOKS[kind]
    return {"facecolor": colour, "hatch": hatch, "edgecolor": ink, "linewidth": 0.0}


def patch(kind: str, label: str = "") -> Patch:
    """Explain a kind in a legend."""
    return Patch(label=label or LOOKS[kind][0], **paint(kind))
