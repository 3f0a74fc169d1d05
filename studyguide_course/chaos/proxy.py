"""A slow and unreliable network on one machine: a proxy between the roles and their Redis."""

import socket
import struct
import threading
import time
from contextlib import suppress
from selectors import EVENT_READ, DefaultSelector

ABORT = struct.pack("ii", 1, 0)  # of SO_LINGER: `close` sends a reset, not an orderly end


class Proxy:
    """Hands bytes on to a port of this machine, each piece `latency_s` late."""

    def __init__(self, target: int, latency_s: float) -> None:
        self._target = target
        self._latency_s = latency_s
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]  # where clients connect
        self._peers: dict[socket.socket, socket.socket] = {}
        self._orders: list[threading.Event] = []
        self._selector = DefaultSelector()
        self._selector.register(self._listener, EVENT_READ)
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="proxy", daemon=True)
        self._thread.start()

    def reset(self) -> int:
        """Reset all connections; return how many there were."""
        count, done = len(self._peers) // 2, threading.Event()
        self._orders.append(done)
        done.wait()
        return count

    def close(self) -> None:
        """Reset all connections and stop to listen."""
        self._closed = True
        self._thread.join()

    def _serve(self) -> None:
        while not self._closed:
            for key, _ in self._selector.select(timeout=0.01):
                ours = key.fileobj
                assert isinstance(ours, socket.socket)
                if ours is self._listener:
                    self._accept()
                elif ours in self._peers:  # not dropped with its peer just now
                    self._hand_on(ours)
            while self._orders:
                self._abort()
                self._orders.pop().set()
        self._abort()
        self._listener.close()
        self._selector.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # the server is away
            client.close()
            return
        self._peers |= {client: server, server: client}
        for ours in (client, server):
            self._selector.register(ours, EVENT_READ)

    def _hand_on(self, ours: socket.socket) -> None:
        data = b""
        with suppress(OSError):
            data = ours.recv(1 << 16)
            time.sleep(self._latency_s)
            self._peers[ours].sendall(data)
        if not data:
            self._drop(ours, self._peers[ours])

    def _abort(self) -> None:
        for ours in self._peers:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        self._drop(*self._peers)

    def _drop(self, *sockets: socket.socket) -> None:
        for ours in sockets:
            del self._peers[ours]
            self._selector.unregister(ours)
            ours.close()
