#!/opt/studyguide/bin/python
"""The folder /data, which pods share without sharing a volume.

The claims of most storage classes can be mounted on one node only, and those of some be written by
root only. So one pod, `files`, keeps the folder, and every other pod has a /data of its own: before
its role starts `pull` fetches what it needs, and while it runs `push` hands over what it writes.

    share.py keep                    serve /data to the other pods
    share.py pull input              fetch a folder
    share.py push run/events output  hand over what is new, until SIGTERM and once more then
"""

import http.client
import os
import secrets
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

DATA = Path(os.environ.get("SHARE_DATA", "/data"))
CLAIM = Path(os.environ.get("SHARE_CLAIM", "/claim"))
SAMPLES = Path(os.environ.get("SHARE_SAMPLES", "/opt/studyguide/images"))
HOST = os.environ.get("SHARE_HOST", "files:8000")
MAX_BYTES = 1 << 28  # of a file that is handed over: a length that claims more is refused
FOLDERS = ("input", "output", "run")
INTERVAL_S = 0.25  # a pod that is killed takes at most so much of its newest events along
LAST_PUSH_S = 10.0  # how long a pod that ends tries to reach `files`
AWAY = (OSError, http.client.HTTPException)  # how it shows that `files` cannot be reached now

Stamp = tuple[int, int]  # time of modification in ns, size


def inside(name: str) -> Path:
    """The file or folder of that name in /data; ValueError if name or a link leads out of it."""
    parts = Path(name.lstrip("/")).parts
    path = DATA.joinpath(*parts)
    homes = (DATA.resolve(), CLAIM.resolve())
    if ".." in parts or not any(path.resolve().is_relative_to(home) for home in homes):
        raise ValueError(f"{name!r} is no name in {DATA}")
    return path


def files_in(folder: Path) -> list[Path]:
    """All files of a folder, without half-written ones."""
    return sorted(path for path in folder.rglob("[!.]*") if path.is_file())


def write(path: Path, body: bytes) -> None:
    """Replace a file in one step: whoever reads it sees all or nothing of the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{secrets.token_hex(8)}.tmp")
    temporary.write_bytes(body)
    temporary.replace(path)


def request(name: str, body: bytes | None = None) -> bytes:
    """Ask `files` for a file or the names in a folder; with a body, hand a file over."""
    method = "GET" if body is None else "PUT"
    url = f"http://{HOST}/{quote(name)}"
    with urllib.request.urlopen(
        urllib.request.Request(url, body, method=method), timeout=LAST_PUSH_S
    ) as it:
        return bytes(it.read())


# --- keep ----------------------------------------------------------------------------------------


def prepare() -> None:
    """Make the folders, on the claim if we may write there, else in the pod; add the samples."""
    for name in FOLDERS:
        mine, claimed = DATA / name, CLAIM / name
        try:
            claimed.mkdir(exist_ok=True)
            on_claim = os.access(claimed, os.W_OK)
        except OSError:
            on_claim = False
        if on_claim and not mine.exists():
            mine.symlink_to(claimed)
        mine.mkdir(exist_ok=True)
        print(f"{mine} is {mine.resolve()}", flush=True)
    if not files_in(DATA / "input"):
        for sample in SAMPLES.iterdir():
            shutil.copyfile(
                sample, DATA / "input" / sample.name
            )  # not modes: others' folders forbid


class Keeper(BaseHTTPRequestHandler):
    """GET a file or the names in a folder, PUT a file."""

    timeout = 60  # seconds of silence

    def do_GET(self) -> None:
        """Send a file, or a line for each file of a folder."""
        try:
            path = inside(unquote(self.path))
            if path.is_dir():
                names = (str(file.relative_to(DATA)) for file in files_in(path))
                self._answer(200, "\n".join(names).encode())
            else:
                self._answer(200, path.read_bytes())
        except (ValueError, OSError) as error:
            self._answer(404, str(error).encode())

    def do_PUT(self) -> None:
        """Keep a file."""
        try:
            path = inside(unquote(self.path))
            length = int(self.headers["Content-Length"] or -1)
            if not 0 <= length <= MAX_BYTES:
                raise ValueError(f"{length} is no length of a file")
            write(path, self.rfile.read(length))
            self._answer(204)
        except (ValueError, OSError) as error:
            print(f"{self.path}: {error}", file=sys.stderr, flush=True)
            self._answer(500, str(error).encode())

    def _answer(self, status: int, body: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay silent: requests come several times a second."""


def keep() -> None:
    """Serve /data until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    prepare()
    ThreadingHTTPServer.daemon_threads = True
    with ThreadingHTTPServer(("", int(HOST.rpartition(":")[2])), Keeper) as server:
        server.serve_forever()


# --- pull and push -------------------------------------------------------------------------------


def pull(folder: str) -> None:
    """Fetch a folder; wait until `files` is there, and say what is in the way."""
    said = ""
    while True:
        try:
            for name in request(folder).decode().splitlines():
                write(inside(name), request(name))
            return
        except AWAY as error:
            if str(error) != said:
                print(f"{HOST}: {error}", file=sys.stderr, flush=True)
            said = str(error)
            time.sleep(INTERVAL_S)


class Pusher:
    """Hands over files that are new or have changed."""

    def __init__(self, events: Path, outputs: Path) -> None:
        self.events = events
        self.outputs = outputs
        self._sent: dict[Path, Stamp] = {}

    def push(self) -> bool:
        """Hand over what is new; False if `files` cannot be reached now.

        Events are read first and sent last, so that one that tells of an image comes after it.
        """
        try:
            told = [(path, stamp, path.read_bytes()) for path, stamp in self._changed(self.events)]
            for path, stamp in self._changed(self.outputs):
                self._send(path, stamp, path.read_bytes())
            for path, stamp, body in told:
                self._send(path, stamp, body)
        except AWAY as error:
            print(f"files: {error}", file=sys.stderr, flush=True)
            return False
        return True

    def _changed(self, folder: Path) -> Iterator[tuple[Path, Stamp]]:
        for path in files_in(folder):
            status = path.stat()  # before it is read: what comes after is sent next time
            stamp = (status.st_mtime_ns, status.st_size)
            if self._sent.get(path) != stamp:
                yield path, stamp

    def _send(self, path: Path, stamp: Stamp, body: bytes) -> None:
        request(str(path.relative_to(DATA)), body)
        self._sent[path] = stamp


def push(events: str, outputs: str) -> None:
    """Hand over what is new four times a second; SIGTERM ends it, after a last time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pusher = Pusher(inside(events), inside(outputs))
    while not signal.sigtimedwait({signal.SIGTERM}, INTERVAL_S):
        pusher.push()
    deadline = time.monotonic() + LAST_PUSH_S
    while not pusher.push() and time.monotonic() < deadline:
        time.sleep(INTERVAL_S)


if __name__ == "__main__":
    verb, *names = sys.argv[1:]
    if verb == "keep":
        keep()
    elif verb == "pull":
        pull(*names)
    else:
        push(*names)
