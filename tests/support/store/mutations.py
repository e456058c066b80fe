"""Random changes of stored objects and of answers, each repeatable by its seed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Final

MUTATIONS_IN_SUITE: Final = 150
"""Seeds of changed objects that `make test` tries."""
OBJECTS_IN_LONG_RUN: Final = 7000
"""Seeds of changed objects that `make test-long` tries."""
ANSWERS_IN_SUITE: Final = 240
"""Seeds of changed answers that `make test` tries: a dozen for each request."""
ANSWERS_IN_LONG_RUN: Final = 3000
"""Seeds of changed answers that `make test-long` tries."""

_INTERESTING: Final = (b"\0", b"\xff", b"\x7f", b"\x80", b"\r\n", b"<", b'"', b"-1", b"9" * 30, b"\0" * 64, b"\xff" * 8)


def mutate(content: bytes, rnd: random.Random) -> bytes:
    """Return a content with one to three changes."""
    for _ in range(rnd.choice((1, 1, 1, 2, 3))):
        content = rnd.choice(_CHANGES)(content, rnd)
    return content


def _place(content: bytes, rnd: random.Random) -> int:
    """Return a position, often near an end, where headers and trailers are."""
    if not content:
        return 0
    near = min(len(content), 200)
    return rnd.choice((rnd.randrange(len(content)), rnd.randrange(near), len(content) - 1 - rnd.randrange(near)))


def _flip(content: bytes, rnd: random.Random) -> bytes:
    if not content:
        return b"\1"
    at = _place(content, rnd)
    return content[:at] + bytes([content[at] ^ 1 << rnd.randrange(8)]) + content[at + 1 :]


def _overwrite(content: bytes, rnd: random.Random) -> bytes:
    at, other = _place(content, rnd), rnd.choice(_INTERESTING)
    return content[:at] + other + content[at + len(other) :]


def _insert(content: bytes, rnd: random.Random) -> bytes:
    at = _place(content, rnd)
    return content[:at] + rnd.choice((*_INTERESTING, rnd.randbytes(rnd.randrange(1, 5000)))) + content[at:]


def _remove(content: bytes, rnd: random.Random) -> bytes:
    at = _place(content, rnd)
    return content[:at] + content[at + rnd.choice((1, 8, 64, 4096, len(content) // 2)) :]


def _repeat(content: bytes, rnd: random.Random) -> bytes:
    at = _place(content, rnd)
    return content[:at] + content[at : at + rnd.choice((1, 50, 5000))] * rnd.choice((2, 20)) + content[at:]


def _cut(content: bytes, rnd: random.Random) -> bytes:
    return content[: _place(content, rnd)]


def _append(content: bytes, rnd: random.Random) -> bytes:
    return content + rnd.choice((b"x", content, rnd.randbytes(100)))


_CHANGES: Final[tuple[Callable[[bytes, random.Random], bytes], ...]] = (
    _flip,
    _overwrite,
    _insert,
    _remove,
    _repeat,
    _cut,
    _append,
)


def mutate_objects(objects: dict[str, bytes], rnd: random.Random) -> Iterator[tuple[str, bytes | None]]:
    """Yield one or two objects with another content; None: removed."""
    keys = sorted(objects)
    for _ in range(rnd.choice((1, 1, 2))):
        key = rnd.choice(keys)
        how = rnd.randrange(10)
        if how == 0:
            yield key, None
        elif how == 1:
            yield key, objects[rnd.choice(keys)]
        else:
            yield key, mutate(objects[key], rnd)
