"""How long `import studyguide` and the first things after it take, each in a fresh interpreter.

    python -m benchmarks.start [--quick]

numba, matplotlib and the rest load when they are used; tests/test_package.py holds that as a fact.
"""

import statistics
import subprocess
import sys
from functools import partial
from typing import Any

from benchmarks.harness import interleave, main, table

PROGRAMS = {
    "python alone": "pass",
    "import studyguide": "import studyguide",
    "studyguide --help": "from studyguide.__main__ import _parser; _parser().format_help()",
    "studyguide.run (report, queues, Redis client)": "from studyguide import run",
    "studyguide.gaussian_blur (numba)": "from studyguide import gaussian_blur",
}


def measure(quick: bool) -> dict[str, Any]:
    variants = {
        name: partial(subprocess.run, [sys.executable, "-c", program], check=True)
        for name, program in PROGRAMS.items()
    }
    return {"seconds": interleave(variants, 3 if quick else 20)}


def importing(data: dict[str, Any]) -> float:
    """Seconds that `import studyguide` takes, with the start of Python."""
    return statistics.median(data["seconds"]["import studyguide"])


def report(data: dict[str, Any]) -> str:
    alone = statistics.median(data["seconds"]["python alone"])
    rows = [
        (
            name,
            f"{1e3 * statistics.median(times):.0f}",
            f"{1e3 * (statistics.median(times) - alone):.0f}",
        )
        for name, times in data["seconds"].items()
    ]
    return "## Imports\n\nEach in a fresh interpreter.\n\n" + table(
        ("", "median, ms", "more than Python alone, ms"), rows
    )


if __name__ == "__main__":
    main("start", measure, report)
