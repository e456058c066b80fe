"""Compare two revisions of this program: `make compare BASE=REVISION`, or `python -m tests.bench.revisions --help`.

Each pair runs every step with both revisions in turn, on the same volumes and the same S3 server. Ratios are calculated
pair by pair, so that what slows the whole machine slows both sides. Both run with the packages of this environment.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from tests.bench import page
from tests.bench.contenders import Cinderblock, home
from tests.bench.filesystem import fresh
from tests.bench.machine import describe
from tests.bench.rounds import Measuring, Results, Step, Volume, check_equal, say
from tests.bench.running import BenchError, Processors, aside
from tests.bench.server import BenchServer, serving
from tests.cluster.errors import ClusterError
from tests.upgrade.__main__ import environment_of, unpack

BASE: Final = "before"
HEAD: Final = "after"
_STEPS: Final = (Step.FULL, Step.UNCHANGED, Step.RESTORE)


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare what the command line says, and print the tables. Returns the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        print("\n".join(_compare(options)))
    except (BenchError, ClusterError) as error:
        print(f"compare: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.revisions", description=__doc__)
    parser.add_argument("base", help="the revision to compare this working tree with")
    parser.add_argument("--pairs", type=int, default=10, help="default: 10")
    parser.add_argument("--size", type=int, default=1 << 30, help="bytes of the image (default: 1 GiB)")
    parser.add_argument("--files", type=int, default=20_000, help="files of the tree (default: 20000)")
    return parser


def _compare(options: argparse.Namespace) -> Iterator[str]:
    processors = Processors.divide(len(os.sched_getaffinity(0)), wait_seconds=0)
    with tempfile.TemporaryDirectory(prefix="compare-") as scratch:
        code = Path(scratch, "base")
        code.mkdir()
        unpack(options.base, code)
        environments = {BASE: {"PYTHONPATH": environment_of(code)["PYTHONPATH"]}, HEAD: {}}
        yield from (f"- {line}" for line in describe(scratch, processors))
        yield f"- {options.pairs} pairs; before: {options.base}"
        volumes = [_make(scratch, "tree", options.files), _make(scratch, "image", options.size)]
        with serving(scratch, processors) as server:
            for volume in volumes:
                pairs = _Pairs(volume, server, scratch, processors, environments)
                for number in range(options.pairs):
                    pairs.measure(number)
                yield from ("", f"{os.path.basename(volume.path)}, {HEAD} / {BASE}:", "")
                yield _ratios(pairs.results)


def _make(scratch: str, kind: str, amount: int) -> Volume:
    path = os.path.join(scratch, kind)
    aside("tests.bench.volumes", kind, path, str(amount), "1")
    return Volume(path)


class _Pairs:
    """Both revisions on one volume."""

    def __init__(
        self,
        volume: Volume,
        server: BenchServer,
        scratch: str,
        processors: Processors,
        environments: Mapping[str, Mapping[str, str]],
    ) -> None:
        self._measuring = Measuring(os.path.basename(volume.path), server, processors)
        self._volume = volume
        self._server = server
        self._scratch = scratch
        self._processors = processors
        self._environments = environments

    @property
    def results(self) -> Results:
        """Measurements until now."""
        return self._measuring.results

    def measure(self, number: int) -> None:
        """Run every step with both revisions; they take turns at being the first. Raises BenchError."""
        names = [BASE, HEAD] if number % 2 else [HEAD, BASE]
        say(f"{os.path.basename(self._volume.path)}: pair {number + 1}")
        self._volume.settle()
        with ExitStack() as stack:
            stack.callback(self._server.forget)
            contenders = [self._contender(name, number, stack) for name in names]
            for step in _STEPS:
                for contender in contenders:
                    self._run(step, contender)

    def _contender(self, name: str, number: int, stack: ExitStack) -> Cinderblock:
        place = f"pair-{number}-{os.path.basename(self._volume.path)}-{name}"
        stack.callback(shutil.rmtree, home(self._scratch, place), ignore_errors=True)
        stack.enter_context(fresh(self._target(name)))
        return Cinderblock(
            self._server, place, self._scratch, self._processors, name=name, environment=self._environments[name]
        )

    def _run(self, step: Step, contender: Cinderblock) -> None:
        path, target = self._volume.path, self._target(contender.name)
        if step is Step.RESTORE:
            self._measuring.measure(step, contender, [], partial(contender.restore, path, target))
            check_equal(path, contender.restored(path, target))
            return
        self._volume.seem_new()
        self._measuring.measure(step, contender, [path], partial(contender.backup, path, first=step is Step.FULL))

    def _target(self, name: str) -> str:
        return os.path.join(self._scratch, f"target-{name}")


def _ratios(results: Results) -> str:
    """Return how many times as much the later revision takes; least, median and largest of all pairs."""
    rows = []
    for step in _STEPS:
        pairs = list(zip(results.samples[step, HEAD], results.samples[step, BASE], strict=True))
        amounts = page.QUANTITIES.values()
        rows.append(
            (str(step), *(page.spread([amount(a) / amount(b) for a, b in pairs if amount(b)]) for amount in amounts))
        )
    return page.table(("Step", *page.QUANTITIES), rows)


if __name__ == "__main__":
    sys.exit(main())
