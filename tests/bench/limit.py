"""Measure the limit for every backup: uploading and downloading the stored bytes, and reading the source.

    python -m tests.bench.limit put|get URL CONTAINER BYTES
    python -m tests.bench.limit read PATH

Prints the seconds that the work itself took, without the start of the interpreter and of the client.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from typing import Final

from cinderblock.api.mover import StoreLocation
from cinderblock.store.factory import open_store
from tests.bench.image import data_ranges

THREADS: Final = 8
_OBJECT: Final = 24 << 20
"""Bytes of an object: those of a pack."""
_READ: Final = 1 << 20
_COMMANDS: Final = ("put", "get")


def main(arguments: list[str]) -> int:
    """Do one of the works, and print its seconds."""
    work = partial(_transfer, *arguments) if arguments[0] in _COMMANDS else partial(_read, arguments[1])
    print(work())
    return 0


def _transfer(what: str, url: str, container: str, size: str) -> float:
    count = max(1, -(-int(size) // _OBJECT))
    body = os.urandom(int(size) // count)
    location = StoreLocation(endpoint_url=url, container=container, create_container=True)
    with closing(open_store(location, None)) as store, ThreadPoolExecutor(THREADS) as pool:
        store.check()
        work: Callable[[str], object] = partial(store.put, body=body) if what == "put" else store.get
        begin = time.perf_counter()
        for _ in pool.map(work, [f"{number:06}" for number in range(count)]):
            pass
        return time.perf_counter() - begin


def _read(path: str) -> float:
    """Read the data of a file, or the files of a tree in order of their names, with one thread and one buffer."""
    buffer = memoryview(bytearray(_READ))
    begin = time.perf_counter()
    if os.path.isdir(path):
        for file in _files(path):
            _read_file(file, buffer)
    else:
        with open(path, "rb", buffering=0) as image:
            for start, end in data_ranges(path):
                for offset in range(start, end, _READ):
                    os.preadv(image.fileno(), [buffer[: min(_READ, end - offset)]], offset)
    return time.perf_counter() - begin


def _read_file(path: str, buffer: memoryview) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        while os.readv(descriptor, [buffer]):
            pass
    finally:
        os.close(descriptor)


def _files(root: str) -> Iterator[str]:
    directories = [root]
    while directories:
        with os.scandir(directories.pop()) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                if entry.is_dir(follow_symlinks=False):
                    directories.append(entry.path)
                else:
                    yield entry.path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
