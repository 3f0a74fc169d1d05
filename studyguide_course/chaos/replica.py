"""A second server that follows the first, and may have to take its place."""

import time
from pathlib import Path
from urllib.parse import urlsplit

from studyguide.errors import QueueError
from studyguide.machinery.link import connect
from studyguide.machinery.processes import Reaper
from studyguide.machinery.redis_server import START_TIMEOUT_S, RedisServer
from studyguide_course.chaos.proxy import Proxy


class Replica:
    """A server with all data of `primary` when it is made, and further writes as they come.

    Replication is asynchronous: a write is acknowledged before it is here. Raises QueueError if
    the server cannot follow. Its writes come over `link`, which can be cut.
    """

    def __init__(
        self,
        primary: RedisServer,
        folder: Path,
        reaper: Reaper | None = None,
        program: Path | None = None,
    ) -> None:
        password = str(urlsplit(primary.url).password)
        self.server = RedisServer.start(folder, True, reaper, program)
        self.link = Proxy(primary.port)
        with connect(primary.url) as source, connect(self.server.url) as client:
            source.config_set("repl-diskless-sync-delay", 0)  # else it waits 5 s for more replicas
            client.config_set("masterauth", password)
            # Clients of the primary, whose place it may have to take, know no other password.
            client.execute_command("ACL", "SETUSER", "default", f">{password}")
            client.execute_command("REPLICAOF", "127.0.0.1", self.link.port)
            deadline = time.monotonic() + START_TIMEOUT_S
            while client.info("replication")["master_link_status"] != "up":
                if time.monotonic() > deadline:
                    raise QueueError("The replica cannot follow", "See redis.log in its folder")
                time.sleep(0.01)

    def promote(self) -> RedisServer:
        """Have the server follow nobody; what is still under way to it is lost."""
        self.link.reset()
        with connect(self.server.url) as client:
            client.execute_command("REPLICAOF", "NO", "ONE")
        return self.server

    def close(self) -> None:
        """End the server and its link."""
        self.link.close()
        self.server.kill()  # it refuses SIGTERM while it writes its first append-only file
        self.server.stop()
