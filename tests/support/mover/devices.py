"""Fill and hash a block device; runs inside pods, with nothing but the standard library.

python3 devices.py fill PATH SEED     random, zero and compressible MiBs in turn, and a few bytes at the end
python3 devices.py edit PATH SEED     other data in some MiBs, and zeros where data was
python3 devices.py digest PATH BYTES  SHA-256 of the first BYTES, and the number of bytes after them that are not zero
"""

from __future__ import annotations

import hashlib
import os
import random
import sys

MIB = 1 << 20
FILLED = 48
"""MiB that are written at most, however large the storage makes the smallest volume."""


def _size(fd: int) -> int:
    return os.lseek(fd, 0, os.SEEK_END)


def _block(rng: random.Random, number: int) -> bytes:
    if number % 3 == 0:
        return rng.randbytes(MIB)
    return bytes(MIB) if number % 3 == 1 else (b"%08d" % rng.randrange(100)) * (MIB // 8)


def fill(path: str, seed: int) -> None:
    """Write the pattern and flush it."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR)
    for number in range(min(FILLED, _size(fd) // MIB * 3 // 4)):
        os.pwrite(fd, _block(rng, number), number * MIB)
    os.pwrite(fd, b"the very end", _size(fd) - 12)
    os.fsync(fd)
    os.close(fd)


def edit(path: str, seed: int) -> None:
    """Change some MiBs, some of them to zeros, and flush."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR)
    for number in rng.sample(range(_size(fd) // MIB), k=6):
        os.pwrite(fd, bytes(MIB) if number % 2 else rng.randbytes(MIB), number * MIB)
    os.fsync(fd)
    os.close(fd)


def digest(path: str, length: int) -> str:
    """Hash of the beginning, and how many bytes after it are not zero."""
    fd = os.open(path, os.O_RDONLY)
    hashed, after = hashlib.sha256(), 0
    for offset in range(0, _size(fd), MIB):
        block = os.pread(fd, MIB, offset)
        inside = max(0, min(len(block), length - offset))
        hashed.update(block[:inside])
        after += len(block) - inside - block[inside:].count(0)
    return f"{hashed.hexdigest()} {after}"


if __name__ == "__main__":
    verb, device, number = sys.argv[1], sys.argv[2], int(sys.argv[3])
    if verb == "digest":
        print(digest(device, number))
    else:
        {"fill": fill, "edit": edit}[verb](device, number)
