"""One volume measured: in every round each program does every step, in turn, with the limits between them."""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial

from tests.bench.cached import Ballast
from tests.bench.contenders import CINDERBLOCK, CONTENDERS, Contender
from tests.bench.filesystem import fresh
from tests.bench.image import data_ranges
from tests.bench.neighbours import await_calm
from tests.bench.running import OWN_PATH, Processors, Usage, aside, own_module, run
from tests.bench.server import BenchServer

CHANGED = 0.01
"""Share of the volume that an incremental finds changed."""


class Step(StrEnum):
    """What is measured."""

    FULL = "full"
    UNCHANGED = "unchanged incremental"
    CHANGED = "1 % changed incremental"
    RESTORE = "restore"
    ON_DISK = "restore, until on disk"
    IN_PLACE = "restore in place, unchanged"


class Limit(StrEnum):
    """What no program can beat."""

    READ = "read of the source"
    PUT = "PUT of the stored bytes"
    GET = "GET of the stored bytes"
    READ_TARGET = "read of the target"


@dataclass(frozen=True)
class Sample:
    """One step of one program. Seconds and bytes.

    Attributes:
        stored: what the step added to the store.
        others: as `Usage` has it.
    """

    wall: float
    cpu: float
    memory: int
    requests: int
    stored: int
    others: float


@dataclass
class Figures:
    """All samples of one volume, in order of rounds."""

    samples: dict[tuple[Step, str], list[Sample]] = field(default_factory=lambda: defaultdict(list))
    limits: dict[Limit, list[float]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Volume:
    """What is backed up: an image file or the root of a tree."""

    path: str

    @property
    def is_tree(self) -> bool:
        """Whether it is a directory."""
        return os.path.isdir(self.path)

    def change(self, seed: int) -> None:
        """Change one per cent of it."""
        aside("tests.bench.volumes", "change", self.path, str(CHANGED), str(seed))

    def seem_new(self) -> None:
        """Give an image a new mtime: the snapshot of a device is a new device each time, and has no mtime at all."""
        if not self.is_tree:
            os.utime(self.path)


class Measuring:
    """Measures steps and limits of one volume, and keeps the figures."""

    def __init__(self, label: str, server: BenchServer, processors: Processors, ballast: Ballast | None = None) -> None:
        self.figures = Figures()
        self._ballast = ballast
        self._label = label
        self._server = server
        self._processors = processors

    def measure(self, step: Step, contender: Contender, warm: str, work: Callable[[], Usage]) -> None:
        """Do one step of one program; ``warm`` is what it will read."""
        settle(warm, self._processors, self._ballast)
        requests, stored = self._server.requests(), self._server.stored()
        used = work()
        sample = Sample(
            used.wall,
            used.cpu,
            used.memory,
            self._server.requests() - requests,
            self._server.stored() - stored,
            used.others,
        )
        self.figures.samples[step, contender.name].append(sample)
        say(
            f"{self._label:9} {step:28} {contender.name:12} {sample.wall:7.2f} s  {sample.cpu:7.2f} s CPU "
            f"{sample.memory >> 20:5} MiB {sample.requests:6} requests {sample.stored / 2**20:8.1f} MiB  "
            f"others {sample.others:4.0%}"
        )

    def sync(self, contender: Contender, target: str) -> None:
        """Wait until what was just restored is on the disk, and keep how long both took together.

        A program that syncs before it ends has nothing left to wait for; one that does not leaves it to the kernel.
        """
        restored = self.figures.samples[Step.RESTORE, contender.name][-1]
        used = run(["sync", "--file-system", target], {}, self._processors)
        sample = replace(restored, wall=restored.wall + used.wall, cpu=restored.cpu + used.cpu)
        self.figures.samples[Step.ON_DISK, contender.name].append(sample)
        say(f"{self._label:9} {Step.ON_DISK:28} {contender.name:12} {sample.wall:7.2f} s")

    def limit(self, limit: Limit, warm: str, *arguments: str) -> None:
        """Measure what no program can beat; ``arguments`` are those of `tests.bench.limit`."""
        settle(warm, self._processors, self._ballast)
        command = own_module("tests.bench.limit", *arguments)
        seconds = float(run(command, {**self._server.environment, **OWN_PATH}, self._processors).output)
        self.figures.limits[limit].append(seconds)
        say(f"{self._label:9} limit: {limit:35} {seconds:6.2f} s")


class Bench:
    """One volume, some programs, one server."""

    def __init__(
        self, volume: Volume, names: Sequence[str], server: BenchServer, scratch: str, processors: Processors
    ) -> None:
        ballast = Ballast(scratch) if processors.patience else None
        self._measuring = Measuring(os.path.basename(volume.path), server, processors, ballast)
        self._volume = volume
        self._names = names
        self._server = server
        self._scratch = scratch
        self._processors = processors

    @property
    def figures(self) -> Figures:
        """What was measured until now."""
        return self._measuring.figures

    def round(self, number: int) -> None:
        """Measure everything once. The programs take turns at being the first. Raises BenchError."""
        place = f"round-{number}-{os.path.basename(self._volume.path)}"
        names = [*self._names[number % len(self._names) :], *self._names[: number % len(self._names)]]
        contenders: list[Contender] = [
            CONTENDERS[name](self._server, f"{place}-{name}", self._scratch, self._processors) for name in names
        ]
        with self._tidy(contenders):
            self._backups(contenders, place, number)
            self._restores(contenders, place, is_first=number == 0)

    def _backups(self, contenders: Sequence[Contender], place: str, number: int) -> None:
        path = self._volume.path
        for step in (Step.FULL, Step.UNCHANGED, Step.CHANGED):
            if step is Step.CHANGED:
                self._volume.change(seed=number)
            for contender in contenders:
                first = step is Step.FULL
                self._volume.seem_new()
                self._measuring.measure(step, contender, path, partial(contender.backup, path, first=first))
            if step is Step.FULL:
                self._measuring.limit(Limit.READ, path, "read", path)
                self._measuring.limit(Limit.PUT, path, "put", self._server.url, f"{place}-raw", str(self._stored()))

    def _restores(self, contenders: Sequence[Contender], place: str, *, is_first: bool) -> None:
        path = self._volume.path
        for step in (Step.RESTORE, Step.IN_PLACE):
            for contender in contenders:
                target = self._target(contender)
                warm = contender.restored(path, target) if step is Step.IN_PLACE else path
                self._measuring.measure(step, contender, warm, partial(contender.restore, path, target))
                if step is Step.RESTORE:
                    self._measuring.sync(contender, target)
                if is_first:
                    check_equal(path, contender.restored(path, target))
            if step is Step.RESTORE:
                self._measuring.limit(Limit.GET, path, "get", self._server.url, f"{place}-raw", str(self._stored()))
        ours = next(contender for contender in contenders if contender.name == CINDERBLOCK)
        target = ours.restored(path, self._target(ours))
        self._measuring.limit(Limit.READ_TARGET, target, "read", target)

    def _stored(self) -> int:
        """Bytes that this program stored for the last full backup."""
        return self.figures.samples[Step.FULL, CINDERBLOCK][-1].stored

    def _target(self, contender: Contender) -> str:
        return os.path.join(self._scratch, f"target-{contender.name}")

    @contextmanager
    def _tidy(self, contenders: Sequence[Contender]) -> Iterator[None]:
        """New file systems as targets, and at the end neither them nor what the round stored."""
        with ExitStack() as stack:
            stack.callback(self._server.forget)
            for contender in contenders:
                stack.enter_context(fresh(self._target(contender)))
            yield


def settle(path: str, processors: Processors, ballast: Ballast | None) -> None:
    """Nothing waits to be written, all of ``path`` is in the page cache, and it is calm, whoever comes next."""
    os.sync()
    await_calm(processors.measured, processors.patience)
    if ballast is not None:
        ballast.fill()
    buffer = memoryview(bytearray(1 << 20))
    for file in _files(path):
        with open(file, "rb", buffering=0) as source:
            for start, end in data_ranges(file):
                for offset in range(start, end, len(buffer)):
                    os.preadv(source.fileno(), [buffer[: end - offset]], offset)


def check_equal(path: str, restored: str) -> None:
    """Raises BenchError if what was restored is not what was backed up."""
    if os.path.isdir(path):
        aside("tests.support.compare", path, restored)
    else:
        aside("tests.bench.volumes", "same", path, restored)


def say(text: str) -> None:
    """Tell how it goes."""
    print(text, file=sys.stderr, flush=True)


def _files(path: str) -> Iterator[str]:
    if not os.path.isdir(path):
        yield path
        return
    for directory, _, names in os.walk(path):
        for name in names:
            yield os.path.join(directory, name)
