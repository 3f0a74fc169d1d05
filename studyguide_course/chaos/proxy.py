"""A slow and unreliable network on one machine: a proxy between the roles and their Redis."""

import asyncio
import socket
import struct
import threading
from asyncio import StreamReader, StreamWriter

ABORT = struct.pack("ii", 1, 0)  # of SO_LINGER: `close` sends a reset, not an orderly end


class Proxy:
    """Hands bytes on to a port of this machine, each piece `latency_s` late."""

    def __init__(self, target: int, latency_s: float) -> None:
        self._target = target
        self._latency_s = latency_s
        self._clients: set[asyncio.Task[None]] = set()
        self._writers: set[StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._open = asyncio.Event()  # not set: nothing is handed on, in silence
        self._open.set()
        serving = asyncio.start_server(self._serve, "127.0.0.1", 0)
        self._server = self._loop.run_until_complete(serving)
        self.port: int = self._server.sockets[0].getsockname()[1]  # where clients connect
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def reset(self) -> int:
        """Reset all connections; return how many there were."""
        return asyncio.run_coroutine_threadsafe(self._reset(), self._loop).result()

    def cut(self) -> None:
        """Hold back all bytes until `heal`, as a partition does; connections stay open."""
        self._loop.call_soon_threadsafe(self._open.clear)

    def heal(self) -> None:
        """Hand on what was held back, and all that follows."""
        self._loop.call_soon_threadsafe(self._open.set)

    def close(self) -> None:
        """Reset all connections and stop to listen."""
        self._loop.call_soon_threadsafe(self._server.close)
        self.heal()
        self.reset()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _reset(self) -> int:
        writers, clients = list(self._writers), list(self._clients)
        for writer in writers:
            ours = writer.get_extra_info("socket")
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
            writer.transport.abort()
        await asyncio.gather(*clients)
        return len(writers) // 2

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One connection, until either side ends it."""
        task = asyncio.current_task()
        assert task
        self._clients.add(task)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:  # the server is away
            writer.close()
        else:
            both = {writer, far_writer}
            self._writers |= both
            ways = (self._hand_on(reader, far_writer), self._hand_on(far_reader, writer))
            await asyncio.gather(*ways)
            self._writers -= both
        self._clients.discard(task)

    async def _hand_on(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                await asyncio.sleep(self._latency_s)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
