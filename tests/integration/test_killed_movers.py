"""Movers that are killed (SIGKILL) at random moments: the next one resumes, the end is the same, nothing is left over.

Nothing is faked: the program is the one of the Job, the S3 server and the processes are real. The rate of the store is
limited, so that there is time to be killed in. A seed draws the moments; what movers do in them, the machine decides.
"""

from __future__ import annotations

import base64
import os
import random
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cinderblock.api.mover import MoverOperation, MoverTask, VolumeMode
from cinderblock.store.base import ObjectStore
from cinderblock.store.factory import open_store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.mover.backups import KEYS, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.compare import compare_trees
from tests.support.mover.mover_pods import PROGRAM, MoverPod
from tests.support.mover.trees import edit_tree, make_tree

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace needs root"),
]

MIB = 1 << 20
RATE = 40 * MIB
"""Bytes per second, up and down."""
NEW_BYTES = 40 * MIB
"""Data that is new in each backup: three packs, and at RATE longer than most movers are let live."""
KILLS = 5
"""Movers that are killed for one operation, unless one has ended before its moment came."""
KILLING_SECONDS = 40
"""Time in which the movers of a test are killed: on a machine that is busy with something else they are slow."""
MIN_KILLS = 2
"""Movers killed at work in all operations of a test; fewer would prove nothing. With more time, 16 and 17 were."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


class World:
    """One volume's backups in a container of their own, made and restored by movers that are killed.

    Attributes:
        store: the container.
        backups: what is in it.
        made: ids of the backups, oldest first.
        kills: movers that were killed while they worked.
    """

    def __init__(self, directory: Path, server: S3Server, mode: VolumeMode) -> None:
        self.container = f"killed-{uuid.uuid4().hex[:12]}"
        rates = {"upload_bytes_per_second": RATE, "download_bytes_per_second": RATE}
        self._location = server.location(self.container, prefix=PREFIX, create_container=True, **rates)
        self.store: ObjectStore = open_store(
            server.location(self.container, prefix=PREFIX, create_container=True), server.credentials
        )
        self.store.check()
        self.backups = Backups(self.store, key_ring())
        self.made: list[str] = []
        self.kills = 0
        self._killing_ends = time.monotonic() + KILLING_SECONDS
        self._mode = mode
        self._random = random.Random(mode)
        self._pod = MoverPod(directory / "pod", server.credentials, KEYS)
        self._key = directory / "key"
        self._key.write_bytes(base64.b64encode(KEYS[key_ring().active]))
        self._server = server

    def back_up(self, path: Path) -> str:
        """Make the next backup; incremental, but for the first. Its id."""
        backup, parent = f"g{len(self.made)}", self.made[-1] if self.made else None
        self._complete(self._task(MoverOperation.BACKUP, backup, path, parent))
        self.made.append(backup)
        return backup

    def restore(self, backup: str, path: Path) -> None:
        """Restore a backup."""
        self._complete(self._task(MoverOperation.RESTORE, backup, path))

    def interrupt_backup(self, backup: str, path: Path) -> None:
        """Kill one mover that makes a backup, while it works."""
        with self._pod.start(self._task(MoverOperation.BACKUP, backup, path)) as process:
            _wait_for_work(process)
            process.kill()

    def delete(self, backup: str, *more: str) -> None:
        """Delete a backup as a person does."""
        credentials = self._server.credentials
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        }
        where = ("--from", f"s3://{self.container}/{PREFIX}", "--endpoint-url", self._server.url)
        key = ("--encryption-key-file", f"{key_ring().active}={self._key}")
        subprocess.run([PROGRAM, "delete", backup, *where, *key, *more], env=environment, check=True)

    def objects(self) -> set[str]:
        """Keys of all objects."""
        return {info.key for info in self.store.list("")}

    def objects_of_made(self) -> set[str]:
        """Manifests, and the packs that they point into."""
        wanted = {self.backups.manifest_key(backup) for backup in self.made}
        return wanted.union(*(self.backups.keys_in_use(backup) for backup in self.made))

    def _task(self, operation: MoverOperation, backup: str, path: Path, parent: str | None = None) -> MoverTask:
        task = self.backups.task(operation, backup, path=path, mode=self._mode, parent=parent)
        return task.model_copy(update={"store": self._location})

    def _complete(self, task: MoverTask) -> None:
        """Kill movers with this task at random moments, then let one end well."""
        for _ in range(KILLS):
            if time.monotonic() > self._killing_ends:
                break
            if not self._is_killed(task):
                return
        report = self._pod.run(task)
        assert report.succeeded, report

    def _is_killed(self, task: MoverTask) -> bool:
        """Start a mover; whether it was killed. Otherwise it has ended well before its moment came."""
        with self._pod.start(task) as process:
            if self._random.random() < 0.2:
                works, moment = False, self._random.uniform(0.1, 1.0)
            else:
                works, moment = _wait_for_work(process), self._random.uniform(0.0, NEW_BYTES / RATE)
            try:
                process.wait(moment)
            except subprocess.TimeoutExpired:
                process.kill()
                self.kills += works
                return True
        assert process.returncode == 0, self._pod.report
        return False


def _wait_for_work(process: subprocess.Popen[bytes]) -> bool:
    """Wait for the first line of progress: then volume and store are open, and bytes are on their way."""
    assert process.stdout is not None
    return bool(process.stdout.readline())


@pytest.fixture
def world(tmp_path: Path, server: S3Server, request: pytest.FixtureRequest) -> Iterator[World]:
    """At the end all backups are deleted, the newest first, and nothing is left."""
    made = World(tmp_path, server, request.param)
    with closing(made.store):
        yield made
        for backup in reversed(made.made):
            made.delete(backup)
        assert made.objects() == set()


def add_data(directory: Path, generation: int) -> None:
    """NEW_BYTES in small and large files."""
    rnd, path = random.Random(generation), directory / f"generation-{generation}"
    path.mkdir()
    for number in range(200):
        (path / f"small{number:03}").write_bytes(rnd.randbytes(50_000))
    (path / "large").write_bytes(rnd.randbytes(NEW_BYTES - 200 * 50_000))


@pytest.mark.parametrize("world", [VolumeMode.FILESYSTEM], indirect=True)
def test_trees_are_backed_up_and_restored_exactly_by_movers_that_are_killed(world: World, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(str(source), seed=7)
    target.mkdir()
    for generation in range(2):
        add_data(source, generation)
        backup = world.back_up(source)
        assert world.objects() == world.objects_of_made()
        world.backups.verify(backup)
        world.restore(backup, target)
        assert compare_trees(str(source), str(target), holes=True) == []
        edit_tree(str(source), seed=generation, edits=25)
        edit_tree(str(target), seed=generation + 100, edits=25)
    assert world.kills >= MIN_KILLS


@pytest.mark.parametrize("world", [VolumeMode.BLOCK], indirect=True)
def test_devices_are_backed_up_and_restored_exactly_by_movers_that_are_killed(world: World, tmp_path: Path) -> None:
    rnd, content = random.Random(8), bytearray(2 * NEW_BYTES + 12345)
    image, target = tmp_path / "image", tmp_path / "target"
    target.write_bytes(b"held before" * (len(content) // 11 + 1))
    for generation in range(2):
        start = generation * NEW_BYTES
        content[start : start + NEW_BYTES] = rnd.randbytes(NEW_BYTES)
        zeros = rnd.randrange(start, start + NEW_BYTES)
        content[zeros // 2 : zeros // 2 + 5 * MIB] = bytes(5 * MIB)
        image.write_bytes(content)
        backup = world.back_up(image)
        assert world.objects() == world.objects_of_made()
        world.backups.verify(backup)
        world.restore(backup, target)
        assert target.read_bytes() == bytes(content).ljust(target.stat().st_size, b"\0")
        with target.open("r+b") as file:
            file.seek(zeros // 2)
            file.write(b"held before" * 100_000)
    assert world.kills >= MIN_KILLS


@pytest.mark.parametrize("world", [VolumeMode.FILESYSTEM], indirect=True)
def test_a_backup_that_was_never_completed_can_be_deleted_without_a_rest(world: World, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    add_data(source, 0)
    world.interrupt_backup("unfinished", source)
    assert any(key.endswith("/data-key") for key in world.objects())
    assert not any(key.endswith(".manifest") for key in world.objects())
    world.delete("unfinished", "--volume-id", VOLUME)
    assert world.objects() == set()
