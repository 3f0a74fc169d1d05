"""How nbval judges the lessons."""

import pytest
from nbval.plugin import IPyNbCell

from studyguide_course.book import MIME

# Warnings name paths, and figures show measurements: cells assert on the data beside them.
NOT_COMPARED = ("stderr", "image/svg+xml", MIME)
QUICKEST = "04_d_distributed_sequential.ipynb"  # the lesson that `make test` executes
OUTPUT_TIMEOUT_S = 60  # nbval waits 5 s, too short while the workers of a cell use every core


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, IPyNbCell):
        item.output_timeout = OUTPUT_TIMEOUT_S
        item.parent.skip_compare = (*item.parent.skip_compare, *NOT_COMPARED)
        if item.path.name != QUICKEST:
            item.add_marker(pytest.mark.slow)
