"""Measure one volume. In every round, each program does every step in turn, with the limits in between."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from itertools import chain
from typing import Final

from tests.bench.cached import Ballast
from tests.bench.contenders import CINDERBLOCK, Cinderblock, Contender, home
from tests.bench.filesystem import fresh
from tests.bench.image import data_ranges
from tests.bench.other_load import await_calm
from tests.bench.peers import PEERS
from tests.bench.running import OWN_PATH, BenchError, Processors, Usage, aside, own_module, run
from tests.bench.server import BenchServer

CHANGED = 0.01
"""Share of the volume that an incremental finds changed."""
SETTLED: Final = 125.0
"""Seconds after which files are older than SMALLEST_WINDOW, with a margin for late timestamps."""


class Step(StrEnum):
    """One step of a backup program, which is measured."""

    FULL = "full"
    UNCHANGED = "unchanged incremental"
    JUST_WRITTEN = "incremental, just written"
    CHANGED = "1 % changed incremental"
    RESTORE = "restore"
    ON_DISK = "restore, until on disk"
    IN_PLACE = "restore in place, unchanged"


COMMON: Final = tuple(step for step in Step if step is not Step.JUST_WRITTEN)
"""Steps of every program. Peers have no dirty window."""


class Limit(StrEnum):
    """The fastest that any program could be."""

    READ = "read of the source"
    PUT = "PUT of the stored bytes"
    GET = "GET of the stored bytes"
    READ_TARGET = "read of the target"


@dataclass(frozen=True)
class Sample:
    """One step of one program. Seconds and bytes.

    Attributes:
        stored: what the step added to the store.
        server: seconds of processor time that the S3 server used meanwhile.
        others: share of the measured processors' time that neither the program nor the server used, the kernel's work
            for them (network, writing back) among it.
    """

    wall: float
    cpu: float
    memory: int
    requests: int
    stored: int
    server: float
    others: float


@dataclass
class Results:
    """All samples of one volume, in order of rounds."""

    samples: dict[tuple[Step, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    rereads: dict[Step, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Files that this program read again because their timestamps were within the dirty window."""
    limits: dict[Limit, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass
class Volume:
    """The source of backups: an image file or the root of a tree, with its content."""

    path: str
    _written: float = field(default_factory=time.monotonic)

    @property
    def is_tree(self) -> bool:
        """Return whether the volume is a directory."""
        return os.path.isdir(self.path)

    def change(self, seed: int) -> None:
        """Change one per cent of it."""
        aside("tests.bench.volumes", "change", self.path, str(CHANGED), str(seed))
        self._written = time.monotonic()

    def settle(self) -> None:
        """Wait until the files of a tree are older than the smallest dirty window."""
        seconds = self._written + SETTLED - time.monotonic()
        if self.is_tree and seconds > 0:
            say(f"{os.path.basename(self.path):9} {seconds:.0f} s until no file is within the dirty window")
            time.sleep(seconds)

    def seem_new(self) -> None:
        """Give an image a new mtime: the snapshot of a device is a new device each time, and has no mtime at all."""
        if not self.is_tree:
            os.utime(self.path)


class Measuring:
    """Measure steps and limits of one volume, and keep the results."""

    def __init__(self, label: str, server: BenchServer, processors: Processors, ballast: Ballast | None = None) -> None:
        self.results = Results()
        self._ballast = ballast
        self._label = label
        self._server = server
        self._processors = processors

    def measure(self, step: Step, contender: Contender, warm: Sequence[str], work: Callable[[], Usage]) -> None:
        """Do one step of one program; ``warm`` is what it will read, besides its objects."""
        settle([*warm, self._server.objects(contender.container)], self._processors, self._ballast)
        requests, stored = self._server.requests(), self._server.stored(contender.container)
        server, used = self._server.cpu_seconds(), work()
        server = self._server.cpu_seconds() - server
        others = used.others - server if self._processors.are_shared else used.others
        sample = Sample(
            wall=used.wall,
            cpu=used.cpu,
            memory=used.memory,
            requests=self._server.requests() - requests,
            stored=self._server.stored(contender.container) - stored,
            server=server,
            others=max(0.0, others) / (used.wall * len(self._processors.measured)),
        )
        self.results.samples[step, contender.name].append(sample)
        say(
            f"{self._label:9} {step:28} {contender.name:12} {sample.wall:7.2f} s  {sample.cpu:7.2f} s CPU "
            f"{sample.memory >> 20:5} MiB {sample.requests:6} requests {sample.stored / 2**20:8.1f} MiB  "
            f"server {sample.server:5.2f} s CPU  others {sample.others:4.0%}"
        )

    def sync(self, contender: Contender, target: str) -> None:
        """Wait until what was just restored is on the disk, and keep how long both took together.

        A program that syncs before it ends has nothing left to wait for; one that does not leaves it to the kernel.
        """
        restored = self.results.samples[Step.RESTORE, contender.name][-1]
        used = run(["sync", "--file-system", target], {}, self._processors)
        sample = replace(restored, wall=restored.wall + used.wall, cpu=restored.cpu + used.cpu)
        self.results.samples[Step.ON_DISK, contender.name].append(sample)
        say(f"{self._label:9} {Step.ON_DISK:28} {contender.name:12} {sample.wall:7.2f} s")

    def limit(self, limit: Limit, warm: str, *arguments: str) -> None:
        """Measure what no program can beat; ``arguments`` are those of `tests.bench.limit`, ``warm`` what it reads."""
        settle([warm], self._processors, self._ballast)
        command = own_module("tests.bench.limit", *arguments)
        seconds = float(run(command, {**self._server.environment, **OWN_PATH}, self._processors).output)
        self.results.limits[limit].append(seconds)
        say(f"{self._label:9} limit: {limit:35} {seconds:6.2f} s")


class Bench:
    """One volume, some programs, one server."""

    def __init__(
        self, volume: Volume, names: Sequence[str], server: BenchServer, scratch: str, processors: Processors
    ) -> None:
        ballast = Ballast(scratch) if processors.wait_seconds else None
        self._measuring = Measuring(os.path.basename(volume.path), server, processors, ballast)
        self._volume = volume
        self._names = names
        self._server = server
        self._scratch = scratch
        self._processors = processors

    @property
    def results(self) -> Results:
        """Return the measurements so far."""
        return self._measuring.results

    def round(self, number: int) -> None:
        """Measure everything once. The programs take turns at being the first. Raises BenchError."""
        place = f"round-{number}-{os.path.basename(self._volume.path)}"
        names = [*self._names[number % len(self._names) :], *self._names[: number % len(self._names)]]
        with self._tidy(place, names):
            contenders = [self._contender(name, f"{place}-{name}") for name in names]
            self._volume.settle()
            self._backups(contenders, f"{place}-raw", number)
            self._restores(contenders, f"{place}-raw", is_first=number == 0)

    def _contender(self, name: str, place: str) -> Contender:
        make = Cinderblock if name == CINDERBLOCK else PEERS[name].make
        return make(self._server, place, self._scratch, self._processors)

    def _backups(self, contenders: Sequence[Contender], raw: str, number: int) -> None:
        path = self._volume.path
        for step in (Step.FULL, Step.UNCHANGED, Step.CHANGED):
            if step is Step.CHANGED:
                self._volume.change(seed=number)
            for contender in contenders:
                first = step is Step.FULL
                self._volume.seem_new()
                self._measuring.measure(step, contender, [path], partial(contender.backup, path, first=first))
                if step is Step.UNCHANGED and isinstance(contender, Cinderblock) and self._volume.is_tree:
                    self._expect_no_rereads(contender)
            if step is Step.FULL and self._volume.is_tree:
                self._measure_just_written(self._ours(contenders))
            if step is Step.FULL:
                self._measuring.limit(Limit.READ, path, "read", path)
                self._transfer(Limit.PUT, "put", raw)

    def _restores(self, contenders: Sequence[Contender], raw: str, *, is_first: bool) -> None:
        path = self._volume.path
        for step in (Step.RESTORE, Step.IN_PLACE):
            for contender in contenders:
                target = self._target(contender.name)
                warm = [contender.restored(path, target)] if step is Step.IN_PLACE else []
                self._measuring.measure(step, contender, warm, partial(contender.restore, path, target))
                if step is Step.RESTORE:
                    self._measuring.sync(contender, target)
                if is_first and (step is Step.RESTORE or contender.name == CINDERBLOCK):
                    check_equal(path, contender.restored(path, target), contender.uncompared)
            if step is Step.RESTORE:
                self._transfer(Limit.GET, "get", raw)
        target = self._ours(contenders).restored(path, self._target(CINDERBLOCK))
        self._measuring.limit(Limit.READ_TARGET, target, "read", target)

    @staticmethod
    def _ours(contenders: Sequence[Contender]) -> Cinderblock:
        return next(contender for contender in contenders if isinstance(contender, Cinderblock))

    def _measure_just_written(self, ours: Cinderblock) -> None:
        """Measure a step directly after a write. Raises BenchError if the step did something else."""
        path = self._volume.path
        self._measuring.measure(Step.JUST_WRITTEN, ours, [path], partial(ours.backup_within_window, path))
        self.results.rereads[Step.JUST_WRITTEN].append(ours.reread)
        if not ours.reread:
            raise BenchError("no file was read again, although all were written within the dirty window")

    def _expect_no_rereads(self, ours: Cinderblock) -> None:
        """Raises BenchError if a file was read again although nothing has written to it."""
        self.results.rereads[Step.UNCHANGED].append(ours.reread)
        if ours.reread:
            raise BenchError(f"{ours.reread} files were read again that nobody had written for {SETTLED:.0f} s")

    def _transfer(self, limit: Limit, what: str, raw: str) -> None:
        """Send or fetch as many bytes as this program stored for the last full backup."""
        stored = self.results.samples[Step.FULL, CINDERBLOCK][-1].stored
        container = self._server.container(raw)
        warm = self._server.objects(container)
        self._measuring.limit(limit, warm, what, self._server.url, container, str(stored))

    def _target(self, name: str) -> str:
        return os.path.join(self._scratch, f"target-{name}")

    @contextmanager
    def _tidy(self, place: str, names: Sequence[str]) -> Iterator[None]:
        """Create new file systems as targets. At the end, remove everything of the round, here and on the server."""
        with ExitStack() as stack:
            stack.callback(self._server.forget)
            for name in names:
                stack.callback(shutil.rmtree, home(self._scratch, f"{place}-{name}"), ignore_errors=True)
                stack.enter_context(fresh(self._target(name)))
            yield


def settle(paths: Sequence[str], processors: Processors, ballast: Ballast | None) -> None:
    """Wait until all data is written, all ``paths`` are in the page cache, and the machine is idle."""
    os.sync()
    await_calm(processors.measured, processors.wait_seconds)
    if ballast is not None:
        ballast.fill()
    buffer = memoryview(bytearray(1 << 20))
    for file in chain.from_iterable(map(_files, paths)):
        with open(file, "rb", buffering=0) as source:
            for start, end in data_ranges(file):
                for offset in range(start, end, len(buffer)):
                    os.preadv(source.fileno(), [buffer[: end - offset]], offset)


def check_equal(path: str, restored: str, uncompared: Sequence[str] = ()) -> None:
    """Raises BenchError if the restored content differs from the source. ``uncompared`` is as in `Contender`."""
    if os.path.isdir(path):
        aside("tests.support.mover.compare", path, restored, *uncompared)
    else:
        aside("tests.bench.volumes", "same", path, restored)


def say(text: str) -> None:
    """Tell how it goes."""
    print(text, file=sys.stderr, flush=True)


def _files(path: str) -> Iterator[str]:
    if os.path.isfile(path):
        yield path
    for directory, _, names in os.walk(path):
        for name in names:
            yield os.path.join(directory, name)
