"""Pages without a kernel: `studyguide charts --html`, and what the book adds to a notebook."""

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from test_charts import faulty, report_of

from studyguide.__main__ import main
from studyguide.record.report import write_log
from studyguide_course import book

PICTURE = base64.b64encode(b"a picture").decode()
TRAITS = {"looks": [], "runs": [{"name": "</script>", "end": 0.123456789}], "alt": "A run."}


def test_charts_can_be_pages_that_need_no_other_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = report_of(faulty())
    log = write_log(report, tmp_path, "f_fault_tolerant_queue")
    assert main(["charts", "--logs", str(tmp_path), "--html", str(tmp_path / "pages")]) == 0
    page = tmp_path / "pages" / f"{log.stem}.html"
    assert capsys.readouterr().out == f"{page}\n"
    text = page.read_text("utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)|@import|url\((?!\$)""", text)
    assert "<h1>f fault-tolerant queue</h1>" in text
    for name, count in report.ledger.items():
        assert f'<th scope="row">{name}</th><td>{count}</td>' in text
    assert str(report.settings["workers"]) in text
    assert not list((tmp_path / "pages").glob("*.png"))


def test_pages_without_a_log_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["charts", "--logs", str(tmp_path), "--html", str(tmp_path / "pages")]) == 2
    assert "No log in" in capsys.readouterr().err


def test_what_is_packed_is_unpacked_with_numbers_rounded() -> None:
    packed = book.pack(TRAITS)
    assert book.unpack(packed) == {**TRAITS, "runs": [{"name": "</script>", "end": 0.12346}]}
    assert re.fullmatch(r"[\w=-]+", packed)  # no slash, so that it never looks like a path


def test_the_data_of_a_page_cannot_end_its_script() -> None:
    html = book.stored(book.pack(TRAITS))
    assert html.count("</script>") == 1
    assert html.endswith("</script>")


def notebook(data: dict[str, Any], **about: Any) -> dict[str, Any]:
    output = {"output_type": "execute_result", "data": data, "metadata": about}
    return {"cells": [{"cell_type": "markdown"}, {"cell_type": "code", "outputs": [output]}]}


def test_a_stored_explorer_stands_beside_its_picture() -> None:
    explorer = notebook(
        {"image/png": PICTURE, "text/plain": "a run", book.MIME: [book.pack(TRAITS)]},
        **{"image/png": {"alt": "A run."}},
    )
    words = book.enliven(explorer)
    assert words == {hashlib.sha256(b"a picture").hexdigest(): "A run."}
    picture, page = explorer["cells"][1]["outputs"]
    assert picture["data"] == {"image/png": PICTURE, "text/plain": "a run"}
    assert page["data"] == {"text/html": book.stored(book.pack(TRAITS))}


def test_outputs_without_an_explorer_stay_as_they_are() -> None:
    plain = notebook({"text/plain": "5"})
    assert book.enliven(plain) == {}
    assert plain == notebook({"text/plain": "5"})


def test_the_script_of_pages_is_no_module() -> None:
    script = book.script()
    assert "function render(" in script
    assert "export" not in script
