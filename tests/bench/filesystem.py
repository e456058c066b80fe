"""A new file system as the target of restores.

On a used file system, results depend on earlier deletions. ext4 skips recently freed inodes one by one
(`recently_deleted` in fs/ext4/ialloc.c). Creating 124,000 files took 2 to 4 times as long after as many had been
removed.

The loop device below it bypasses the page cache, like a real disk. Otherwise the measured processors would write
everything twice, to one cache and then to another.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from typing import Final

from tests.bench.running import BenchError

_BYTES: Final = 12 << 30
"""Size of the sparse file below the file system."""
_INODES: Final = 400_000


@contextlib.contextmanager
def fresh(directory: str) -> Iterator[None]:
    """Mount a new ext4 at ``directory``, which is made, until the block ends. Raises BenchError; needs root."""
    image = f"{directory}.ext4"
    with contextlib.ExitStack() as stack:
        with open(image, "xb") as file:
            file.truncate(_BYTES)
        stack.callback(os.unlink, image)
        loop = _do("losetup", "--find", "--show", "--direct-io=on", image).strip()
        stack.callback(_do, "losetup", "--detach", loop)
        os.mkdir(directory)
        stack.callback(os.rmdir, directory)
        # Whatever the kernel would do lazily, it would do while something is measured.
        _do("mkfs.ext4", "-q", "-F", "-N", str(_INODES), "-E", "lazy_itable_init=0,lazy_journal_init=0", loop)
        _do("mount", loop, directory)
        # Lazily: after an interruption, processes of the program that restored may not have ended yet.
        stack.callback(_do, "umount", "--lazy", directory)
        yield


def _do(*command: str) -> str:
    """Run a command, and return what it prints. Raises BenchError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BenchError(f"{' '.join(command)} failed (root is needed): {(done.stdout + done.stderr).strip()}")
    return done.stdout
