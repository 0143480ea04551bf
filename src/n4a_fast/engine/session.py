"""Which process holds an artifact, and whether that process is still alive."""

from __future__ import annotations

import os
import platform
from functools import lru_cache

import psutil


def this_session() -> str:
    """Host, process id and start time of this process: a name that no later process has."""
    return _session(os.getpid())


@lru_cache(maxsize=1)
def _session(pid: int) -> str:
    return f"{platform.node()}/{pid}/{psutil.Process(pid).create_time():.2f}"


def is_alive(session: str) -> bool:
    """Whether the process of `session` still runs; a session of another host counts as alive."""
    host, pid, started = session.rsplit("/", 2)
    if host != platform.node():
        return True
    try:
        return f"{psutil.Process(int(pid)).create_time():.2f}" == started
    except psutil.NoSuchProcess:
        return False
