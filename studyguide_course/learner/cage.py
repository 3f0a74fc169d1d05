"""A cage for foreign code: namespaces of Linux without a network and without files of others."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import studyguide
import studyguide_course

ROOM_MIB = 256  # for all files that a submission writes; they lie in memory
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
APART = ("-Urmnpiu", "--fork", "--kill-child")
POWERLESS = ("--bounding-set=-all", "--inh-caps=-all", "--no-new-privs")
# $1 is a folder on which the new root is mounted, $2 how many paths follow that are to be seen in
# it, read only; the command comes after them. What is mounted is seen by nobody else.
SCRIPT = f"""set -e
root=$1 seen=$2
shift 2
ip link set lo up
mount -t tmpfs -o size={ROOM_MIB}m,mode=755 none "$root"
mkdir -p "$root/tmp" "$root/proc" "$root/dev/shm" "$root/etc"
mount -t proc none "$root/proc"
while [ "$seen" -gt 0 ]; do
    to=$root$1
    mkdir -p "${{to%/*}}"
    if [ -d "$1" ]; then mkdir -p "$to"; else : > "$to"; fi
    mount --rbind "$1" "$to"
    case $1 in /dev/*) ;; *) mount -o remount,bind,ro,nosuid,nodev "$to" ;; esac
    seen=$((seen - 1))
    shift
done
cd "$root"
exec chroot "$root" "$@"
"""


def packages() -> set[Path]:
    """The folders in which the two packages of the course lie."""
    return {Path(str(it.__file__)).parent.parent for it in (studyguide, studyguide_course)}


def _visible() -> Iterator[str]:
    """What Python, Redis and the judges need, each path once and none inside another."""
    system = (
        "/bin",
        "/lib",
        "/lib32",
        "/lib64",
        "/sbin",
        "/usr",
        "/etc/passwd",
        "/etc/ld.so.cache",
    )
    devices = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
    python = (sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parents[1]))
    own = (str(Path(str(it.__file__)).parent) for it in (studyguide, studyguide_course))
    taken: list[Path] = []
    for path in sorted({Path(each) for each in (*system, *devices, *python, *own)}):
        if path.exists() and not any(path.is_relative_to(other) for other in taken):
            taken.append(path)
            yield str(path)


def caged(argv: Sequence[str], root: Path) -> list[str]:
    """Return the command that runs `argv` in a cage; `root` is an empty folder of its own."""
    seen = list(_visible())
    script = ["sh", "-c", SCRIPT, "sh", str(root), str(len(seen)), *seen]
    return ["unshare", *APART, *script, "setpriv", *POWERLESS, *argv]


def available(root: Path) -> bool:
    """Whether this system lets us make a cage: tried with a command that does nothing."""
    command = caged([sys.executable, "-c", ""], root)
    try:
        done = subprocess.run(command, capture_output=True, env={"PATH": PATH})
    except OSError:  # there is no `unshare`
        return False
    return done.returncode == 0
