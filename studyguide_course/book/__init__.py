"""Explorers without a kernel: what a notebook stores of one, and the pages that show it.

`view.js` asks a model for its traits. On a page without Python, `book.js` hands it those that were
stored with the output; where no script runs, the chart stands there as a picture.
"""

import base64
import json
import zlib
from typing import Any

MIME = "application/vnd.studyguide.runs"  # of a cell's output: text, see `pack`


def pack(traits: dict[str, Any]) -> str:
    """Return traits as text for a notebook: JSON, deflated, in base64 without slashes.

    Numbers are rounded to 5 decimals: times, in seconds, to 10 microseconds.
    """
    rounded = json.loads(json.dumps(traits), parse_float=lambda text: round(float(text), 5))
    body = json.dumps(rounded, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(zlib.compress(body, 9)).decode()


def unpack(text: str) -> dict[str, Any]:
    """Return what was packed."""
    traits: dict[str, Any] = json.loads(zlib.decompress(base64.urlsafe_b64decode(text)))
    return traits
