"""What is installed here, and what a run will use."""

import shutil
import subprocess

from studyguide.errors import StudyguideError
from studyguide.machinery.link import safe_url
from studyguide.machinery.redis_server import external_server, find_server
from studyguide.record.report import machine
from studyguide.settings import redis_url


def describe() -> dict[str, str]:
    """Versions, cores, the Redis that e to g will use, and whether a cluster answers."""
    found = {name: str(value) for name, value in machine().items()}
    return {**found, "Redis server": _redis(), "cluster": _cluster()}


def kernel_cache() -> str:
    """The folder where compiled kernels are kept, or what to do if there is none."""
    from studyguide.machinery.kernels import cache_folder

    missing = "none: each process compiles its kernels; set NUMBA_CACHE_DIR to a writable folder"
    return cache_folder() or missing


def _redis() -> str:
    try:
        if url := redis_url():
            return f"{external_server(url)} at {safe_url(url)} (REDIS_URL)"
        return f"{find_server().name}, started for each run"  # lessons store no path
    except StudyguideError as error:
        return f"none: {error}"


def _cluster() -> str:
    if not shutil.which("kubectl"):
        return "none: kubectl is not installed; d to g run on processes of this machine"
    command = ["kubectl", "config", "current-context"]
    try:
        context = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        return f"none: kubectl cannot be used ({error})"
    if context.returncode:
        return "none: kubectl has no context; d to g run on processes of this machine"
    return f"context {context.stdout.strip()}"
