"""Compare uploads with and without checksum headers: `python -m tests.bench.checksums --help`.

Each pair sends the same body with every checksum in turn to one S3 server, and reads it back. Ratios are calculated
pair by pair, so that what slows the whole machine slows all of them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Final

from cinderblock.api.mover import StoreLocation
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.checksum import Checksum, UploadChecksums
from cinderblock.store.s3.store import S3Store
from tests.cluster import s3
from tests.cluster.s3 import S3Server

BASE: Final = Checksum.NONE
_STEPS: Final = ("PUT", "GET")

Times = dict[tuple[str, Checksum], list[tuple[float, float]]]
"""Seconds of wall and of this program's processor time, pair by pair."""


class _Fixed(UploadChecksums):
    """Sends one checksum, whatever the server says."""

    def __init__(self, checksum: Checksum) -> None:
        super().__init__()
        self._checksum, self._is_proven = checksum, True


class _FixedStore(S3Store):
    """A store whose uploads carry one checksum."""

    def use(self, checksum: Checksum) -> None:
        """Choose the checksum."""
        self._checksums = _Fixed(checksum)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print the table. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.checksums", description=__doc__)
    parser.add_argument("--pairs", type=int, default=20, help="default: 20")
    parser.add_argument("--size", type=int, default=64 << 20, help="bytes of a body (default: 64 MiB)")
    options = parser.parse_args(arguments)
    with s3.running("--keep-alive") as server:
        print("\n".join(_table(_measure(server, options.pairs, options.size))))
    return 0


def _measure(server: S3Server, pairs: int, size: int) -> Times:
    body, times = os.urandom(size), Times()
    with ExitStack() as stack:
        stores = {checksum: _open(server, checksum) for checksum in Checksum}
        for store in stores.values():
            stack.callback(store.close)
            store.check()
            store.put("warm", body)
        for number in range(pairs):
            order = [*Checksum][number % 3 :] + [*Checksum][: number % 3]
            for checksum in order:
                store, key = stores[checksum], f"body-{checksum.name}"
                _take(times, ("PUT", checksum), lambda store=store, key=key: store.put(key, body))
                _take(times, ("GET", checksum), lambda store=store, key=key: store.get(key, 0, size))
    return times


def _open(server: S3Server, checksum: Checksum) -> _FixedStore:
    where = {"endpoint_url": server.url, "region": server.region, "container": "checksums"}
    location = StoreLocation.model_validate(where | {"create_container": True})
    store = _FixedStore(location, S3Credentials(server.access_key, server.secret_key))
    store.use(checksum)
    return store


def _take(times: Times, step: tuple[str, Checksum], call: Callable[[], object]) -> None:
    processor, wall = time.process_time(), time.perf_counter()
    call()
    times.setdefault(step, []).append((time.perf_counter() - wall, time.process_time() - processor))


def _table(times: Times) -> Iterator[str]:
    yield "| Call | Checksum | Wall ms | Processor ms | Wall / without | Processor / without |"
    yield "|---|---|---|---|---|---|"
    for step in _STEPS:
        without = times[step, BASE]
        for checksum in Checksum:
            taken = times[step, checksum]
            absolute = [_three([1000 * pair[part] for pair in taken], ".0f") for part in (0, 1)]
            ratios = [
                _three([pair[part] / base[part] for pair, base in zip(taken, without, strict=True)], ".2f")
                for part in (0, 1)
            ]
            yield f"| {step} | {checksum.value} | {' | '.join(absolute + ratios)} |"


def _three(values: list[float], form: str) -> str:
    """Return the median, and the middle half of the values."""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


if __name__ == "__main__":
    sys.exit(main())
