"""As much of Redis as protocol.lua calls, with the script itself run by an embedded Lua.

Its state can be taken and put back, before and after every write of a script, which a real server
does not offer; tests/test_protocol.py holds its answers and its state equal to a real server's.
"""

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

from lupa.lua51 import LuaRuntime, lua_type

WRITES = {
    *("XADD", "XDEL", "XACK", "XCLAIM", "XGROUP", "HSET", "HSETNX", "HDEL"),
    *("SET", "DEL", "UNLINK", "SADD", "SREM", "ZADD", "ZREM"),
}
State = tuple[Hashable, ...]


@dataclass
class Stream:
    """Entries by id, and what the one group knows: id -> (consumer, idle ms, deliveries)."""

    entries: dict[int, tuple[str, ...]] = field(default_factory=dict)
    last: int = 0
    consumers: set[str] = field(default_factory=set)
    pending: dict[int, tuple[str, int, int]] = field(default_factory=dict)


class SmallRedis:
    """A server whose clock stands still; `before_7` deleted entries stay pending when claimed."""

    def __init__(self, before_7: bool = False) -> None:
        self.before_7 = before_7
        self.keys: dict[str, Any] = {}
        self.next_id = 1
        self.after_write: Any = lambda: None

    def call(self, name: str, *args: Any) -> Any:
        """One command, as redis.call gives its answer to Lua."""
        answer = getattr(self, name.lower())(*map(str, args))
        if name in WRITES:
            self.after_write()
        return False if answer is None else answer

    def get(self, key: str, default: Any) -> Any:
        return self.keys.setdefault(key, default)

    def drop_if_empty(self, key: str) -> None:
        if not self.keys.get(key, True):
            del self.keys[key]

    # strings, hashes, sets, sorted sets

    def time(self) -> list[str]:
        return ["0", "0"]

    def exists(self, key: str) -> int:
        return int(key in self.keys)

    def set(self, key: str, value: str, *_expiry: str) -> dict[str, str]:
        self.keys[key] = value
        return {"ok": "OK"}

    def delete(self, key: str) -> int:
        return int(self.keys.pop(key, None) is not None)

    def unlink(self, *keys: str) -> int:
        return sum(map(self.delete, keys))

    def hset(self, key: str, name: str, value: str) -> int:
        new = name not in self.get(key, {})
        self.keys[key][name] = value
        return int(new)

    def hsetnx(self, key: str, name: str, value: str) -> int:
        return self.hset(key, name, value) if name not in self.keys.get(key, {}) else 0

    def hget(self, key: str, name: str) -> str | None:
        found: str | None = self.keys.get(key, {}).get(name)
        return found

    def hkeys(self, key: str) -> list[str]:
        return list(self.keys.get(key, ()))

    def hexists(self, key: str, name: str) -> int:
        return int(name in self.keys.get(key, {}))

    def hlen(self, key: str) -> int:
        return len(self.keys.get(key, ()))

    def hdel(self, key: str, name: str) -> int:
        gone = self.keys.get(key, {}).pop(name, None)
        self.drop_if_empty(key)
        return int(gone is not None)

    def sadd(self, key: str, name: str) -> int:
        new = name not in self.get(key, set())
        self.keys[key].add(name)
        return int(new)

    def srem(self, key: str, name: str) -> int:
        there = name in self.keys.get(key, ())
        self.keys.get(key, set()).discard(name)
        self.drop_if_empty(key)
        return int(there)

    def sismember(self, key: str, name: str) -> int:
        return int(name in self.keys.get(key, ()))

    def zadd(self, key: str, score: str, name: str) -> int:
        new = name not in self.get(key, {})
        self.keys[key][name] = float(score)
        return int(new)

    def zrem(self, key: str, name: str) -> int:
        return self.hdel(key, name)

    def zcard(self, key: str) -> int:
        return self.hlen(key)

    def zrangebyscore(self, key: str, _low: str, high: str, *limit: str) -> list[str]:
        scored = sorted((score, name) for name, score in self.keys.get(key, {}).items())
        return [name for score, name in scored if score <= float(high)][: int(limit[2])]

    # streams; each has at most one group, which is there from the start

    def xadd(self, key: str, _id: str, *fields: str) -> str:
        entry, self.next_id = self.next_id, self.next_id + 1
        self.get(key, Stream()).entries[entry] = fields
        return str(entry)

    def xdel(self, key: str, entry: str) -> int:
        return int(self.get(key, Stream()).entries.pop(int(entry), None) is not None)

    def xack(self, key: str, _group: str, entry: str) -> int:
        return int(self.get(key, Stream()).pending.pop(int(entry), None) is not None)

    def xlen(self, key: str) -> int:
        return len(self.get(key, Stream()).entries)

    def xpending(self, key: str, _group: str, *args: str) -> list[Any]:
        least = int(args[1]) if args[0] == "IDLE" else 0
        first, last, count = args[-3:]
        low, high = (0, self.next_id) if first == "-" else (int(first), int(last))
        leases = sorted(self.get(key, Stream()).pending.items())
        return [
            [str(entry), consumer, idle, deliveries]
            for entry, (consumer, idle, deliveries) in leases
            if low <= entry <= high and idle >= least
        ][: int(count)]

    def xclaim(
        self, key: str, _group: str, consumer: str, least: str, entry: str, *just: str
    ) -> list[Any]:
        stream, number = self.get(key, Stream()), int(entry)
        stream.consumers.add(consumer)
        lease = stream.pending.get(number)
        if lease is None or lease[1] < int(least):
            return []
        if number not in stream.entries and not self.before_7:
            del stream.pending[number]
            return []
        stream.pending[number] = (consumer, 0, lease[2] + (not just))
        fields = stream.entries.get(number)
        if just:
            return [entry]
        return [False] if fields is None else [[entry, list(fields)]]

    def xinfo(self, _consumers: str, key: str, _group: str) -> list[Any]:
        stream = self.keys[key]
        held = [owner for owner, *_ in stream.pending.values()]
        return [
            ["name", name, "pending", held.count(name), "idle", 0]
            for name in sorted(stream.consumers)
        ]

    def xgroup(self, _delconsumer: str, key: str, _group: str, consumer: str) -> int:
        stream = self.keys[key]
        lost = [entry for entry, lease in stream.pending.items() if lease[0] == consumer]
        for entry in lost:
            del stream.pending[entry]
        stream.consumers.discard(consumer)
        return len(lost)

    def xreadgroup(self, key: str, consumer: str) -> tuple[int, tuple[str, ...]] | None:
        """The next entry that was not delivered yet."""
        stream = self.get(key, Stream())
        new = [entry for entry in sorted(stream.entries) if entry > stream.last]
        stream.consumers.add(consumer)
        if not new:
            return None
        stream.last = new[0]
        stream.pending[new[0]] = (consumer, 0, 1)
        return new[0], stream.entries[new[0]]


setattr(SmallRedis, "del", SmallRedis.delete)


class Script:
    """A text of the protocol, compiled once; runs on any `SmallRedis`."""

    def __init__(self, text: str) -> None:
        self._lua = LuaRuntime(unpack_returned_tuples=True)
        self._call: Any = None
        self._lua.globals().redis = self._lua.table(
            call=lambda *args: self._to_lua(self._call(*args))
        )
        self._function = self._lua.eval(f"function(KEYS, ARGV) {text}\nend")

    def run(self, server: SmallRedis, prefix: str, *args: object) -> Any:
        """The script's answer; tables as lists."""
        self._call = server.call
        argv = self._lua.table_from([str(arg) for arg in args])
        return _from_lua(self._function(self._lua.table(prefix), argv))

    def _to_lua(self, value: Any) -> Any:
        if isinstance(value, list):
            return self._lua.table_from([self._to_lua(item) for item in value])
        return self._lua.table_from(value) if isinstance(value, dict) else value


def _from_lua(value: Any) -> Any:
    if lua_type(value) == "table":
        return [_from_lua(value[n + 1]) for n in range(len(value))]
    return value


def torn(text: str, writes: int) -> str:
    """The same script, which fails after so many writes; Redis does not take them back."""
    names = ", ".join(f"{name} = true" for name in sorted(WRITES))
    head = f"""
local left, writes = {writes}, {{{names}}}
local function call(name, ...)
  if writes[name] then
    if left == 0 then error('torn') end
    left = left - 1
  end
  return redis.call(name, ...)
end
"""
    return head + re.sub(r"\bredis\.call\(", "call(", text)
