"""Volumes that are backed up when a release is recorded: small, and with what is easily lost."""

from __future__ import annotations

import os
import random
from pathlib import Path

MIB = 1 << 20
DEVICE_BYTES = MIB
SECOND = 1_000_000_000
LONG_AGO = 1_700_000_000 * SECOND
"""The mtime of everything: long before any backup."""


def make_tree(root: Path) -> None:
    """Make a tree with each kind of entry, names that are no UTF-8, owners, modes and attributes."""
    rnd = random.Random(1)
    for directory in ("", "deep/er/and/deeper", "empty"):
        (root / directory).mkdir(parents=True, exist_ok=True)
    (root / "noise").write_bytes(rnd.randbytes(1500))
    (root / "text").write_bytes(b"a line of text\n" * 300)
    (root / "nothing").touch()
    (root / "goes").write_bytes(b"is removed before the second backup")
    (root / "stays").write_bytes(b"the same in every backup" * 40)
    (root / "deep/er/and/deeper/file").write_bytes(rnd.randbytes(700))
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe name")).write_bytes(b"its name is no UTF-8")
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(3 * MIB + 5)
        sparse.seek(2 * MIB)
        sparse.write(b"in the middle")
    (root / "hard link").hardlink_to(root / "text")
    (root / "symbolic link").symlink_to("../no where")
    os.mkfifo(root / "fifo")
    os.setxattr(root / "noise", "user.comment", b"value\0with NUL")
    os.chown(root / "nothing", 12345, 54321)
    (root / "nothing").chmod(0o4711)
    (root / "empty").chmod(0o2770)
    stamp(root)


def change_tree(root: Path) -> None:
    """Change a file, its size included, remove one and add one."""
    (root / "deep/er/and/deeper/file").write_bytes(random.Random(2).randbytes(900))
    (root / "goes").unlink()
    (root / "came").write_bytes(b"was added before the second backup")
    stamp(root)


def change_again(root: Path) -> None:
    """Change what differs in the third backup."""
    (root / "came").write_bytes(b"was written again, longer than before, for the third backup")
    (root / "stays").chmod(0o600)
    stamp(root)


def make_device(path: Path) -> None:
    """Make an image with data at its ends and holes between."""
    with path.open("wb") as file:
        file.truncate(DEVICE_BYTES)
        file.write(b"boot" * 1000)
        file.seek(DEVICE_BYTES - 1000)
        file.write(random.Random(3).randbytes(1000))


def change_device(path: Path) -> None:
    """Write into a hole of the image."""
    with path.open("r+b") as file:
        file.seek(DEVICE_BYTES // 2)
        file.write(b"written later" * 100)


def stamp(root: Path) -> None:
    """Give everything below a directory, and itself, the same old mtime."""
    for path in (*root.rglob("*"), root):
        os.utime(path, ns=(LONG_AGO, LONG_AGO), follow_symlinks=False)
