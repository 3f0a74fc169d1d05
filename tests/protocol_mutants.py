"""Every way to leave one write of protocol.lua out, to swap two, or to take a branch wrongly."""

import re
from collections.abc import Iterator

# A write as a statement of its own, or a helper that is made of writes.
STATEMENT = re.compile(
    r"^ *(redis\.call\('(XADD|XDEL|XACK|XCLAIM|XGROUP|HSET|HDEL|SET|UNLINK|SADD|SREM|ZADD|ZREM)'"
    r"|(put|let_go|announce_if_complete|conclude)\().*\)$"
)
# A write whose answer is used: what stands there instead when it is left out.
ANSWERED = {
    "local first = redis.call('HSETNX', key('res', job), tile, result)": "local first = 1",
    "local claimed = redis.call('XCLAIM', key(stream), group, consumer, idle_ms, entry)": (
        "local claimed = {}"
    ),
}
Name = tuple[str, str, str]  # what is done, in which command, to which line

# Mutants that change nothing which matters, and why.
EQUIVALENT: dict[Name, str] = {
    (
        "swapped",
        "conclude",
        "redis.call('SADD', key('done', job), tile) <-> redis.call('HDEL', key('dead', job), tile)",
    ): "both come after the result and before the entry goes, and are repeated if torn apart",
    (
        "swapped",
        "finish",
        "redis.call('SADD', key('done', job), tile) <-> redis.call('HDEL', key('dead', job), tile)",
    ): "both come before the announcement goes, and are repeated if torn apart",
    (
        "swapped",
        "reject",
        "put(spec, tile, 1) <-> redis.call('SREM', key('done', job), tile)",
    ): "until the result goes, which is last, the tile has not to be done again, and whoever "
    "rejects still has the announcement and repeats all of it",
}

# What the state machine on a real server does not see in its 60 examples, by the beginning of the
# line: a script has to be torn in one place, and a certain step to come next. The model, which
# tries all, sees these too. An XACK left out of `reclaim` changes nothing from Redis 7.0 on.
SELDOM = (
    ("left out", "audit", "announce_if_complete(job, spec, total)"),
    ("left out", "conclude", "redis.call('HDEL', key('dead', job), til"),
    ("left out", "fail", "conclude(job, spec, tile, total)"),
    ("left out", "finish", "redis.call('SADD', key('done', job), til"),
    ("left out", "finish", "redis.call('HDEL', key('dead', job), til"),
    ("left out", "reclaim", "redis.call('XACK', key(stream), group, e"),
    ("left out", "reject", "redis.call('SREM', key('done', job), til"),
    ("swapped", "commit", "conclude(job, spec, tile, total)"),
    ("swapped", "conclude", "redis.call('HDEL', key('dead', job), til"),
    ("swapped", "discard", "redis.call('XADD', key('dlq'), '*', 'ent"),
    ("swapped", "fail", "if redis.call('HEXISTS', key('res', job)"),
    ("swapped", "finish", "for _, tile in ipairs(redis.call('HKEYS'"),
    ("swapped", "finish", "redis.call('SET', key('state', job), sta"),
    ("swapped", "promote", "put(spec, tile, attempt)"),
    ("swapped", "reject", "redis.call('SREM', key('done', job), til"),
)


def is_seldom(name: Name) -> bool:
    """Whether the state machine may miss a mutant."""
    return any(
        name[:2] == (what, where) and name[2].startswith(line) for what, where, line in SELDOM
    )


def mutants(text: str) -> Iterator[tuple[Name, str]]:
    """(what is done, command, line) and the mutated text."""
    lines = text.split("\n")
    command = ""
    for n, line in enumerate(lines):
        if found := re.match(r"(?:local )?function (?:commands\.)?(\w+)", line):
            command = found[1]
        if line.strip() in ANSWERED:
            left_out = line.replace(line.strip(), ANSWERED[line.strip()])
            yield ("left out", command, line.strip()), changed(lines, n, [left_out])
        elif STATEMENT.match(line):
            yield ("left out", command, line.strip()), changed(lines, n, [])
        if is_write(line) and (m := following(lines, n)):
            swapped = [*lines[n + 1 : m], lines[m], line]
            name = f"{line.strip()} <-> {lines[m].strip()}"
            yield ("swapped", command, name), "\n".join(lines[:n] + swapped + lines[m + 1 :])
        if is_write(line) and (block := block_before(lines, n)) is not None:
            name = f"{lines[block].strip()} ... end <-> {line.strip()}"
            moved = [*lines[:block], line, *lines[block:n], *lines[n + 1 :]]
            yield ("swapped", command, name), "\n".join(moved)


# What else decides: how many tiles are over, and which of them an audit looks at.
BOUNDS = (
    ("if count_over(job) >= total then", "if count_over(job) > total then"),
    (" - redis.call('HEXISTS', key('res', job), tile)", ""),
    ("over = over + 1 - redis.call('HEXISTS', key('res', job), tile)", ""),
    ("found[1] = math.min(total, first + count)", ""),
    ("found[1] = math.min(total, first + count)", "found[1] = first + count"),
    ("for tile = first, found[1] - 1 do", "for tile = 0, found[1] - 1 do"),
    ("for tile = first, found[1] - 1 do", "for tile = first + 1, found[1] - 1 do"),
    ("for tile = first, found[1] - 1 do", "for tile = first, found[1] - 2 do"),
)


def branches(text: str) -> Iterator[tuple[Name, str]]:
    """Mutants in which a condition, or a part of it, always or never holds, or a bound is off."""
    lines = text.split("\n")
    command = ""
    for n, line in enumerate(lines):
        if found := re.match(r"(?:local )?function (?:commands\.)?(\w+)", line):
            command = found[1]
        if found := re.match(r"( *(?:else)?if )(.*) then$", line):
            whole = found[2]
            for part in {whole: 0, **dict.fromkeys(re.split(" and | or ", whole))}:
                for how, value in (("always", "true"), ("never", "false")):
                    mutated = f"{found[1]}{whole.replace(part, value, 1)} then"
                    yield (how, command, part), changed(lines, n, [mutated])
    for before, after in BOUNDS:
        assert text.count(before) == 1, before
        yield ("bound", before, after), text.replace(before, after)


def is_write(line: str) -> bool:
    return bool(STATEMENT.match(line)) or line.strip() in ANSWERED


def indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def following(lines: list[str], n: int) -> int | None:
    """The next statement, if it is a write on the same level."""
    return n + 1 if is_write(lines[n + 1]) and indent(lines[n]) == indent(lines[n + 1]) else None


def block_before(lines: list[str], n: int) -> int | None:
    """Where the `if` or `for` begins that ends in the line before, on the same level."""
    if lines[n - 1].strip() != "end" or indent(lines[n - 1]) != indent(lines[n]):
        return None
    heads = (m for m in range(n - 2, 0, -1) if indent(lines[m]) == indent(lines[n]))
    return next(m for m in heads if re.match(r" *(if|for)\b", lines[m]))


def changed(lines: list[str], n: int, by: list[str]) -> str:
    return "\n".join(lines[:n] + by + lines[n + 1 :])
