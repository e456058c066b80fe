"""Fill and hash a block device. This runs inside pods with only the standard library.

python3 devices.py fill PATH SEED     write random, zero and compressible MiBs in turn, and a few bytes at the end
python3 devices.py edit PATH SEED     change some MiBs, half of them to zeros
python3 devices.py digest PATH BYTES  print the SHA-256 of the first BYTES, and the count of later bytes that are not 0
"""

from __future__ import annotations

import hashlib
import os
import random
import sys

MIB = 1 << 20
MAX_FILLED_MIB = 48
"""Most MiB to write, even if the smallest volume of the storage is larger."""


def _size(fd: int) -> int:
    return os.lseek(fd, 0, os.SEEK_END)


def _block(rng: random.Random, number: int) -> bytes:
    if number % 3 == 0:
        return rng.randbytes(MIB)
    return bytes(MIB) if number % 3 == 1 else (b"%08d" % rng.randrange(100)) * (MIB // 8)


def fill(path: str, seed: int) -> None:
    """Write the pattern, and flush it."""
    rng = random.Random(seed)
    fd = os.open(path, os.O_RDWR)
    for number in range(min(MAX_FILLED_MIB, _size(fd) // MIB * 3 // 4)):
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
    """Return the hash of the first ``length`` bytes, and the number of later bytes that are not zero."""
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
