"""A file system that nobody has used: what a restore writes to.

On a used one figures depend on what was deleted before. ext4 passes over inodes that were freed in the last minutes one
by one (`recently_deleted` in fs/ext4/ialloc.c); making 124,000 files took 2 to 4 times as long after as many had been
removed, by whomever.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Final

from tests.bench.running import BenchError

_BYTES: Final = 12 << 30
"""Of the file below it, which is sparse."""
_INODES: Final = 400_000


@contextlib.contextmanager
def fresh(directory: str) -> Iterator[None]:
    """Mount a new ext4 at ``directory``, which is made, until the block ends. Raises BenchError; needs root."""
    image = f"{directory}.ext4"
    with open(image, "xb") as file:
        file.truncate(_BYTES)
    os.mkdir(directory)
    try:
        # Whatever the kernel would do lazily, it would do while something is measured.
        _do("mkfs.ext4", "-q", "-F", "-N", str(_INODES), "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
        _do("mount", "-o", "loop", image, directory)
        try:
            yield
        finally:
            _do("umount", directory)
    finally:
        os.rmdir(directory)
        os.unlink(image)


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed (root is needed): {(done.stdout + done.stderr).strip()}")
