"""A slow and unreliable network on one machine: a proxy between the roles and their Redis."""

import asyncio
import random
import socket
import struct
import threading
from asyncio import Queue, StreamReader, StreamWriter, Task
from contextlib import suppress

ABORT = struct.pack("ii", 1, 0)  # of SO_LINGER: `close` sends a reset, not an orderly end
PIECE_BYTES = 1 << 16
QUEUED = 64  # pieces that are on their way in one direction; then the sender has to wait
Way = Queue[tuple[float, bytes]]  # when a piece is due, and the piece


class Proxy:
    """Hands bytes on, in order, to a port of this machine.

    All parameters are attributes that may be changed while it works. It counts `bytes`, the
    `round_trips` (a client sends something after an answer) and `lost` connections.

    Parameters
    ----------
    target : int
        Port to which the next connections lead; those that exist stay where they are.
    latency_s, jitter_s : float
        Seconds that each piece of up to 64 KiB is under way: `latency_s`, and up to `jitter_s` more
        by chance. Pieces are under way at the same time, so latency costs no bandwidth.
    loss : float
        The probability with which a piece is lost and its connection reset, on both sides.
    """

    def __init__(
        self, target: int, latency_s: float = 0.0, jitter_s: float = 0.0, loss: float = 0.0
    ) -> None:
        self.target, self.latency_s, self.jitter_s, self.loss = target, latency_s, jitter_s, loss
        self.bytes = self.round_trips = self.lost = 0
        self._connections: dict[Task[None], list[StreamWriter]] = {}
        self._asking: set[Task[None]] = set()  # connections whose last piece came from the client
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()  # not set: nothing is handed on, in silence
        self._open.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()  # first: a notebook's own loop runs in the thread that calls us
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        self.port: int = self._server.sockets[0].getsockname()[1]  # where clients connect

    def reset(self) -> int:
        """Reset all connections, with what is under way; return how many there were."""
        return asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result()

    def cut(self) -> None:
        """Hold back all bytes from now until `heal`, as a partition does; connections stay open."""
        asyncio.run_coroutine_threadsafe(self._hold(), self._loop).result()

    def heal(self) -> None:
        """Hand on what was held back, and all that follows."""
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        """Reset all connections and stop to listen."""
        self._loop.call_soon_threadsafe(self._server.close)
        asyncio.run_coroutine_threadsafe(self._reset(ends=True), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _hold(self) -> None:
        self._open.clear()

    async def _reset(self, ends: bool = False) -> int:
        there = sum(len(writers) == 2 for writers in self._connections.values())
        tasks = asyncio.all_tasks() - {asyncio.current_task()} if ends else {*self._connections}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return there

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection, until either side ends it."""
        task = asyncio.current_task()
        assert task
        writers = self._connections[task] = [writer]
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.append(far_writer)
            there, back = Way(QUEUED), Way(QUEUED)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._take(reader, there, task, asks=True))
                both.create_task(self._give(there, far_writer))
                both.create_task(self._take(far_reader, back, task, asks=False))
                both.create_task(self._give(back, writer))
        except (asyncio.CancelledError, BaseExceptionGroup):  # reset by us, by a side or by chance
            for its in writers:
                with suppress(OSError):  # this side has ended already
                    end = its.get_extra_info("socket")
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
                its.transport.abort()
        except OSError:  # the server is away
            writer.close()
        finally:
            self._asking.discard(task)
            del self._connections[task]

    async def _take(self, reader: StreamReader, way: Way, task: Task[None], asks: bool) -> None:
        """Put what comes in on its way, and note when it is due."""
        data = b"?"
        while data:
            data = await reader.read(PIECE_BYTES)
            if random.random() < self.loss:
                self.lost += 1
                raise ConnectionResetError
            late_s = self.latency_s + random.uniform(0, self.jitter_s)
            self.bytes += len(data)
            self.round_trips += asks and bool(data) and task not in self._asking
            (self._asking.add if asks else self._asking.discard)(task)
            await way.put((self._loop.time() + late_s, data))

    async def _give(self, way: Way, writer: StreamWriter) -> None:
        """Hand on what is due; an empty piece is the end."""
        data = b"?"
        while data:
            due, data = await way.get()
            await asyncio.sleep(due - self._loop.time())
            await self._open.wait()
            writer.write(data)
            await writer.drain()
        writer.close()
