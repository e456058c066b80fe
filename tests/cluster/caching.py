"""A cache for files that take long to create, shared safely between concurrent clusters."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def directory(name: str) -> Path:
    """Return a directory of the user's cache, made if absent."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    path = Path(base, "cinderblock", name)
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextlib.contextmanager
def locked(path: Path, shared: bool = False) -> Iterator[None]:
    """Hold a lock, alone or with others who share it. The kernel takes it back however this process ends."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock alone if nobody has it; tell whether that is so."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
