#!/opt/studyguide/bin/python
"""The folder /data, which pods share without sharing a volume.

The claims of most storage classes can be mounted on one node only, and those of some be written by
root only. So one pod, `files`, keeps the folder, and every other pod has a /data of its own: before
its role starts `pull` fetches what it needs, and while it runs `push` hands over what it writes.

    share.py keep                    serve /data to the other pods
    share.py pull input              fetch a folder
    share.py push run/events output  hand over what is new, until SIGTERM and once more then

Files pass in parts, so none has to fit into a pod's memory. Files of events only grow: of these the
new part alone is sent, so that events can be sent as they happen.
"""

import http.client
import os
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from pathlib import Path
from threading import Lock, get_ident
from urllib.parse import quote, unquote_to_bytes

DATA = Path(os.environ.get("SHARE_DATA", "/data"))
CLAIM = Path(os.environ.get("SHARE_CLAIM", "/claim"))
SAMPLES = Path(os.environ.get("SHARE_SAMPLES", "/opt/studyguide/images"))
HOST = os.environ.get("SHARE_HOST", "files:8000")
MAX_BYTES = 1 << 30  # of a file that is handed over: a length that claims more is refused
PART = 1 << 20  # bytes of a file in memory
FOLDERS = ("input", "output", "run")
MARK = "run/.mark"  # tells a folder from one that replaces it
COMPLETE = "run/.complete"  # is there when the folder `input` has all images
INTERVAL_S = 0.02  # a pod that is killed takes at most so much of its newest events along
RECOGNISE_S = 1.0  # between two checks whether the folder is still the same
REFUSED_S = 5.0  # until a file that was refused is offered again
RETRY_S = 0.25  # while `files` cannot be reached
TIMEOUT_S = 10.0  # of a request; also how long a pod that ends tries to reach `files`
AWAY = (OSError, http.client.HTTPException)  # how it shows that `files` cannot be reached now

Stamp = tuple[int, int]  # time of modification in ns, size


def inside(name: str) -> Path:
    """Return the file or folder of that name in /data; ValueError if it lies outside."""
    parts = Path(name.lstrip("/")).parts
    path = DATA.joinpath(*parts)
    homes = (DATA.resolve(), CLAIM.resolve())
    if ".." in parts or not any(path.resolve().is_relative_to(home) for home in homes):
        raise ValueError(f"{name!r} is not a name in {DATA}")
    return path


def name_of(path: Path) -> str:
    """Return the name of a file in /data, as `inside` takes it."""
    return str(path.relative_to(DATA))


def is_unfinished(path: Path) -> bool:
    """Check whether a file is still being written, here or by the library."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def files_in(folder: Path) -> list[Path]:
    """List all files of a folder, without unfinished ones."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and not is_unfinished(p))


def parts(source: BufferedIOBase, length: int) -> Iterator[bytes]:
    """Read exactly `length` bytes; ConnectionError if the source ends before."""
    while length:
        part = source.read(min(PART, length))
        if not part:
            raise ConnectionError(f"cut off {length} bytes before the end")
        length -= len(part)
        yield part


def write(path: Path, body: Iterable[bytes]) -> None:
    """Replace a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{time.monotonic_ns()}-{get_ident()}.tmp")
    try:
        with temporary.open("xb") as file:
            file.writelines(body)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def say(problem: object) -> None:
    """Write a line to the pod's log, whatever bytes a name in it has."""
    print(ascii(str(problem))[1:-1], file=sys.stderr, flush=True)


# --- keep ----------------------------------------------------------------------------------------


def prepare() -> None:
    """Make the folders, on the claim if it can be written, else in the pod; add samples, if any."""
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
        for path in mine.rglob(".*.tmp"):
            path.unlink(missing_ok=True)
        print(f"{mine} is {mine.resolve()}", flush=True)
    if not (DATA / MARK).exists():
        (DATA / MARK).write_text(uuid.uuid4().hex)
    if not SAMPLES.exists():
        return  # whoever has deployed this brings the images, and the mark after them
    if not files_in(DATA / "input"):
        for sample in SAMPLES.iterdir():
            # Not its mode: other users may not be allowed to read it.
            shutil.copyfile(sample, DATA / "input" / sample.name)
    (DATA / COMPLETE).touch()


class Keeper(BaseHTTPRequestHandler):
    """GET a file or the names in a folder, PUT a file, PATCH to add to its end."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 60  # seconds of silence
    appending = Lock()
    unread = 0  # bytes of the request's body

    def do_GET(self) -> None:
        """Send a file, or the names of all files of a folder with a NUL after each."""
        try:
            path = self._inside()
            if path.is_dir():
                names = (os.fsencode(name_of(file)) + b"\0" for file in files_in(path))
                self._answer(200, b"".join(names))
                return
            file = path.open("rb")
        except (ValueError, OSError) as error:
            self._refuse(404, error)
            return
        with file:
            length = os.fstat(file.fileno()).st_size
            self._head(200, length)
            self.wfile.writelines(parts(file, length))

    def do_PUT(self) -> None:
        """Keep a file."""
        try:
            write(self._inside(), self._body())
            self._answer(204)
        except (ValueError, OSError) as error:
            self._refuse(500, error)

    def do_PATCH(self) -> None:
        """Add to the end of a file that has as many bytes as the header `Offset` says."""
        try:
            with self.appending, self._inside().open("r+b") as file:
                if file.seek(0, os.SEEK_END) != int(self.headers["Offset"]):
                    raise FileNotFoundError("it has another length")
                file.writelines(self._body())
            self._answer(204)
        except FileNotFoundError as error:
            self._refuse(409, error)
        except (ValueError, OSError) as error:
            self._refuse(500, error)

    def _inside(self) -> Path:
        return inside(os.fsdecode(unquote_to_bytes(self.path)))

    def _body(self) -> Iterator[bytes]:
        length = int(self.headers["Content-Length"] or -1)
        if not 0 <= length <= MAX_BYTES:
            raise ValueError(f"{length} is not the length of a file that is kept here")
        self.unread = length
        for part in parts(self.rfile, length):
            self.unread -= len(part)
            yield part

    def _refuse(self, status: int, error: Exception) -> None:
        """Say why, once the whole body was read: before, nobody listens to the answer."""
        if status >= 500:
            say(f"{self.path}: {error}")
        while self.unread and (part := self.rfile.read(min(PART, self.unread))):
            self.unread -= len(part)
        self.close_connection = True
        self._answer(status, str(error).encode(errors="backslashreplace"))

    def _answer(self, status: int, body: bytes = b"") -> None:
        self._head(status, len(body))
        self.wfile.write(body)

    def _head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Stay silent: requests come many times a second."""


def keep() -> None:
    """Serve /data until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    prepare()
    ThreadingHTTPServer.daemon_threads = True
    with ThreadingHTTPServer(("", int(HOST.rpartition(":")[2])), Keeper) as server:
        server.serve_forever()


# --- pull and push -------------------------------------------------------------------------------


class RefusedError(Exception):
    """`files` can be reached and did not do it: what it said, and the HTTP status."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(said)
        self.status = status


class Files:
    """The pod `files`, over a connection that stays open. Raises one of AWAY if it is broken."""

    def __init__(self) -> None:
        self._connection = http.client.HTTPConnection(HOST, timeout=TIMEOUT_S)

    def read(self, name: str) -> bytes:
        """Return a small file, or the names in a folder."""
        return b"".join(self._ask("GET", name))

    def fetch(self, name: str) -> None:
        """Copy a file here."""
        write(inside(name), self._ask("GET", name))

    def send(self, path: Path, offset: int, size: int) -> None:
        """Hand over a file's bytes from `offset` to `size`."""
        try:
            file = path.open("rb")
        except OSError as error:
            raise RefusedError(0, str(error)) from error
        with file:
            file.seek(offset)
            headers = {"Content-Length": str(size - offset), "Offset": str(offset)}
            verb, body = "PATCH" if offset else "PUT", parts(file, size - offset)
            b"".join(self._ask(verb, name_of(path), body, headers))

    def _ask(
        self,
        verb: str,
        name: str,
        body: Iterable[bytes] | None = None,
        headers: Mapping[str, str] = {},
    ) -> Iterator[bytes]:
        """Yield the parts of the answer's body. Raises RefusedError if it is an error."""
        try:
            self._connection.request(verb, "/" + quote(os.fsencode(name)), body, headers)
            answer = self._connection.getresponse()
            if answer.status >= 400:
                raise RefusedError(answer.status, answer.read().decode(errors="replace"))
            yield from parts(answer, answer.length or 0)
            answer.read()  # nothing more; the connection is free again
        except BaseException:
            self._connection.close()
            raise


def pull(folder: str) -> None:
    """Fetch a folder; wait until `files` has all images, and say what is in the way."""
    files, said = Files(), ""
    while True:
        try:
            files.read(COMPLETE)
            for name in files.read(folder).split(b"\0")[:-1]:
                files.fetch(os.fsdecode(name))
            return
        except (*AWAY, RefusedError) as error:
            if str(error) != said:
                say(f"{HOST}: {error}")
            said = str(error)
            time.sleep(RETRY_S)


class Pusher:
    """Hands over files that are new or have changed; all of them if `files` has a new folder."""

    def __init__(self, events: Path, outputs: Path) -> None:
        self.events = events
        self.outputs = outputs
        self._files = Files()
        self._sent: dict[Path, Stamp] = {}
        self._refused: dict[Path, float] = {}  # until when it is not offered again
        self._mark = b""
        self._recognised = -RECOGNISE_S  # when the mark was read
        self._said = ""

    def push(self) -> bool:
        """Hand over what is new; False if `files` cannot be reached now.

        Events are looked at first and sent last, so that one that tells of an image comes after it.
        """
        try:
            self._recognise()
            told = list(self._changed(self.events))
            for path, stamp in [*self._changed(self.outputs), *told]:
                self._send(path, stamp)
        except AWAY as error:
            if str(error) != self._said:
                say(f"{HOST}: {error}")
            self._said = str(error)
            self._recognised = -RECOGNISE_S  # it may be another pod next time
            return False
        self._said = ""
        return True

    def _recognise(self) -> None:
        """Check every now and then whether the folder of `files` is still the same."""
        now = time.monotonic()
        if now - self._recognised < RECOGNISE_S:
            return
        try:
            mark = self._files.read(MARK)
        except RefusedError:
            mark = b""
        if mark != self._mark:
            self._sent.clear()
        self._mark, self._recognised = mark, now

    def _changed(self, folder: Path) -> Iterator[tuple[Path, Stamp]]:
        now = time.monotonic()
        for path in files_in(folder):
            status = path.stat()  # before it is read: what comes after is sent next time
            stamp = (status.st_mtime_ns, status.st_size)
            if self._sent.get(path) != stamp and self._refused.get(path, now) <= now:
                yield path, stamp

    def _send(self, path: Path, stamp: Stamp) -> None:
        _, offset = self._sent.get(path, (0, 0))
        grows = path.is_relative_to(self.events) and offset < stamp[1]
        try:
            self._files.send(path, offset if grows else 0, stamp[1])
            self._sent[path] = stamp
        except RefusedError as error:
            if error.status == 409:  # perhaps it is another folder
                del self._sent[path]
                self._recognised = -RECOGNISE_S
            else:
                say(f"{path}: {error}")
                self._refused[path] = time.monotonic() + REFUSED_S


def push(events: str, outputs: str) -> None:
    """Hand over what is new as it comes; SIGTERM ends it, after a last time."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    pusher, pause = Pusher(inside(events), inside(outputs)), INTERVAL_S
    while not signal.sigtimedwait({signal.SIGTERM}, pause):
        pause = INTERVAL_S if pusher.push() else RETRY_S
    deadline = time.monotonic() + TIMEOUT_S
    while not pusher.push() and time.monotonic() < deadline:
        time.sleep(RETRY_S)


if __name__ == "__main__":
    verb, *names = sys.argv[1:]
    if verb == "keep":
        keep()
    elif verb == "pull":
        pull(*names)
    else:
        push(*names)
