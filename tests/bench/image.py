"""The test image: one third holes, one third text, one third noise. Also changes it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Final

from tests.bench.text import Text

_STRIPE: Final = 4 << 20
_EDIT: Final = 1 << 20
_PAGE: Final = 4096


def make_image(path: str, size: int, seed: int) -> None:
    """Create an image of ``size`` bytes. Its stripes of 4 MiB are holes, text and noise in turn, in shuffled order."""
    text, dice = Text(seed), random.Random(seed)
    with open(path, "xb") as file:
        file.truncate(size)
        for start in range(0, size, 3 * _STRIPE):
            for number, kind in enumerate(dice.sample(("hole", "text", "noise"), 3)):
                offset = start + number * _STRIPE
                length = min(_STRIPE, size - offset)
                if kind != "hole" and length > 0:
                    file.seek(offset)
                    file.write(text.piece(length) if kind == "text" else text.noise(length))


def make_scattered(path: str, size: int, data: int, seed: int) -> None:
    """Create a sparse image of ``size`` bytes with ``data`` bytes of text and noise, in pieces of 256 KiB at random
    offsets.
    """
    text, dice = Text(seed), random.Random(seed)
    piece = 256 << 10
    with open(path, "xb") as file:
        file.truncate(size)
        for number, place in enumerate(sorted(dice.sample(range(size // piece), data // piece))):
            file.seek(place * piece)
            file.write(text.piece(piece) if number % 2 else text.noise(piece))


def change_image(path: str, share: float, seed: int) -> None:
    """Write over a share of the image: runs of 1 MiB at pages anywhere, half of them text and half noise."""
    text, dice = Text(seed), random.Random(seed)
    size = os.path.getsize(path)
    with open(path, "r+b") as file:
        for number in range(max(1, round(size * share / _EDIT))):
            file.seek(dice.randrange((size - _EDIT) // _PAGE) * _PAGE)
            file.write(text.piece(_EDIT) if number % 2 else text.noise(_EDIT))


def is_same_image(path: str, other: str) -> bool:
    """Return whether two images hold the same bytes.

    Ranges that are holes in both are not read, which is most of 1 TiB.
    """
    if os.path.getsize(path) != os.path.getsize(other):
        return False
    with open(path, "rb", buffering=0) as left, open(other, "rb", buffering=0) as right:
        for start, end in (*data_ranges(path), *data_ranges(other)):
            for offset in range(start, end, _EDIT):
                length = min(_EDIT, end - offset)
                if os.pread(left.fileno(), length, offset) != os.pread(right.fileno(), length, offset):
                    return False
    return True


def data_ranges(path: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of each range of data in a file."""
    with open(path, "rb") as file:
        fd, size = file.fileno(), os.path.getsize(path)
        position = 0
        while position < size:
            try:
                start = os.lseek(fd, position, os.SEEK_DATA)
            except OSError:
                return
            position = os.lseek(fd, start, os.SEEK_HOLE)
            yield start, position
