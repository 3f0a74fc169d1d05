"""Explorers without a kernel: what a notebook stores of one, and the pages that show it.

`view.js` asks a model for its traits. On a page without Python, `alone.js` hands it those that were
stored with the output; where no script runs, the chart stands there as a picture.
"""

import base64
import json
import zlib
from hashlib import sha256
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MIME = "application/vnd.studyguide.runs"  # of a cell's output: text, see `pack`
EXPORT = "export default { render };\n"  # what makes view.js a module


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


def stored(packed: str) -> str:
    """Return HTML that holds an explorer's traits beside its picture, for `script` to find."""
    text = json.dumps(unpack(packed), separators=(",", ":")).replace("<", "\\u003c")
    return f'<script type="application/json" class="sg-stored">{text}</script>'


def script() -> str:
    """Return view.js and alone.js as one script, which browsers also run from a file."""
    view = (HERE.parent / "view.js").read_text("utf-8").removesuffix(EXPORT)
    return f"(() => {{\n{view}{(HERE / 'alone.js').read_text('utf-8')}}})();\n"


def enliven(notebook: dict[str, Any]) -> dict[str, str]:
    """Put the data of each stored explorer into a notebook's HTML, as an output of its own.

    Returns
    -------
    dict of str to str
        Of each picture in the outputs: the sha256 of its bytes, in hex, and its alt text.
    """
    words = {}
    for cell in notebook["cells"]:
        for output in list(cell.get("outputs", ())):
            data = output.get("data", {})
            if packed := data.pop(MIME, None):
                page = {"data": {"text/html": stored("".join(packed))}, "metadata": {}}
                cell["outputs"].append({"output_type": "display_data", **page})
            if alt := output.get("metadata", {}).get("image/png", {}).get("alt"):
                picture = base64.b64decode("".join(data["image/png"]))
                words[sha256(picture).hexdigest()] = alt
    return words
