"""Draw a sample image beside its blurred self, for README and the book: docs/beside.png.

Usage: ``python tools/draw_beside.py``, after a change of the samples or of a run's defaults.
"""

from pathlib import Path

import numpy as np

from studyguide import gaussian_blur
from studyguide.images import load, save
from studyguide.tiles import Pixels

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs" / "beside.png"
PART = np.s_[410:710, 320:760]  # of the image, rows and columns: a pixel stays a pixel
GAP = 8  # columns of white


def beside() -> Pixels:
    """Return a part of the image, uint8 (H, W, 3), and the same part blurred on its right."""
    original = load(ROOT / "images" / "input" / "glass.png")
    blurred = gaussian_blur(original, method="direct")  # as runs do by default
    white = np.full((original[PART].shape[0], GAP, 3), 255, np.uint8)
    return np.hstack([original[PART], white, blurred[PART]])


if __name__ == "__main__":
    save(PICTURE, beside())
