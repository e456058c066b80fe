"""Movers killed by SIGKILL at random moments: the next one resumes, the result is the same, nothing is left over.

Nothing is faked: the program is the one of the Job, and S3 server and processes are real. The rate of the store is
limited, so that movers live long enough to be killed. A seed draws the moments; what a mover does then varies.
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
"""New data in each backup: three packs. At RATE, uploading it takes longer than most movers live."""
KILLS = 5
"""Movers killed for one operation, unless one succeeds before its moment comes."""
KILLING_SECONDS = 20
"""For how long the movers of a test are killed, and longer until MIN_KILLS: on a busy machine they are slow."""
MIN_KILLS = 2
"""Least movers killed at work in a test, so that it proves something. With more time, 16 and 17 were killed."""


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


class Harness:
    """Makes and restores backups of one volume, in their own container, with movers that it kills.

    Attributes:
        store: the container.
        backups: the backups in it.
        made: ids of the completed backups, oldest first.
        kills: how many movers were killed while they worked.
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
        """Make the next backup and return its id. All but the first are incremental."""
        backup, parent = f"g{len(self.made)}", self.made[-1] if self.made else None
        self._complete(self._task(MoverOperation.BACKUP, backup, path, parent))
        self.made.append(backup)
        return backup

    def restore(self, backup: str, path: Path) -> None:
        """Restore a backup."""
        self._complete(self._task(MoverOperation.RESTORE, backup, path))

    def interrupt_backup(self, backup: str, path: Path) -> None:
        """Start a backup, and kill its mover while it works."""
        with self._pod.start(self._task(MoverOperation.BACKUP, backup, path)) as process:
            _wait_for_work(process)
            process.kill()

    def delete(self, backup: str, *more: str) -> None:
        """Delete a backup with the command line."""
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
        """Return the keys of all objects."""
        return {info.key for info in self.store.list("")}

    def objects_of_made(self) -> set[str]:
        """Return the keys of all manifests, and of the packs that they use."""
        manifests = {self.backups.manifest_key(backup) for backup in self.made}
        return manifests.union(*(self.backups.keys_in_use(backup) for backup in self.made))

    def _task(self, operation: MoverOperation, backup: str, path: Path, parent: str | None = None) -> MoverTask:
        task = self.backups.task(operation, backup, path=path, mode=self._mode, parent=parent)
        return task.model_copy(update={"store": self._location})

    def _complete(self, task: MoverTask) -> None:
        """Kill movers with this task at random moments, then let one succeed."""
        for _ in range(KILLS):
            if time.monotonic() > self._killing_ends and self.kills >= MIN_KILLS:
                break
            if not self._is_killed(task):
                return
        report = self._pod.run(task)
        assert report.succeeded, report

    def _is_killed(self, task: MoverTask) -> bool:
        """Start a mover. Return whether it was killed, or else it succeeded before its moment came."""
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
    """Wait for the first line of progress: volume and store are open by then, and data is transferred."""
    assert process.stdout is not None
    return bool(process.stdout.readline())


@pytest.fixture
def harness(tmp_path: Path, server: S3Server, request: pytest.FixtureRequest) -> Iterator[Harness]:
    """Delete all backups at the end, the newest first, and check that nothing is left."""
    made = Harness(tmp_path, server, request.param)
    with closing(made.store):
        yield made
        for backup in reversed(made.made):
            made.delete(backup)
        assert made.objects() == set()


def add_data(directory: Path, generation: int) -> None:
    """Add NEW_BYTES in small and large files."""
    rnd, path = random.Random(generation), directory / f"generation-{generation}"
    path.mkdir()
    for number in range(200):
        (path / f"small{number:03}").write_bytes(rnd.randbytes(50_000))
    (path / "large").write_bytes(rnd.randbytes(NEW_BYTES - 200 * 50_000))


@pytest.mark.parametrize("harness", [VolumeMode.FILESYSTEM], indirect=True)
def test_killed_movers_back_up_and_restore_trees_exactly(harness: Harness, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(str(source), seed=7)
    target.mkdir()
    for generation in range(2):
        add_data(source, generation)
        backup = harness.back_up(source)
        assert harness.objects() == harness.objects_of_made()
        harness.backups.verify(backup)
        harness.restore(backup, target)
        assert compare_trees(str(source), str(target), holes=True) == []
        edit_tree(str(source), seed=generation, edits=25)
        edit_tree(str(target), seed=generation + 100, edits=25)
    assert harness.kills >= MIN_KILLS


@pytest.mark.parametrize("harness", [VolumeMode.BLOCK], indirect=True)
def test_killed_movers_back_up_and_restore_devices_exactly(harness: Harness, tmp_path: Path) -> None:
    rnd, content = random.Random(8), bytearray(2 * NEW_BYTES + 12345)
    image, target = tmp_path / "image", tmp_path / "target"
    target.write_bytes(b"held before" * (len(content) // 11 + 1))
    for generation in range(2):
        start = generation * NEW_BYTES
        content[start : start + NEW_BYTES] = rnd.randbytes(NEW_BYTES)
        zeros = rnd.randrange(start, start + NEW_BYTES)
        content[zeros // 2 : zeros // 2 + 5 * MIB] = bytes(5 * MIB)
        image.write_bytes(content)
        backup = harness.back_up(image)
        assert harness.objects() == harness.objects_of_made()
        harness.backups.verify(backup)
        harness.restore(backup, target)
        assert target.read_bytes() == bytes(content).ljust(target.stat().st_size, b"\0")
        with target.open("r+b") as file:
            file.seek(zeros // 2)
            file.write(b"held before" * 100_000)
    assert harness.kills >= MIN_KILLS


@pytest.mark.parametrize("harness", [VolumeMode.FILESYSTEM], indirect=True)
def test_unfinished_backup_can_be_deleted_completely(harness: Harness, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    add_data(source, 0)
    harness.interrupt_backup("unfinished", source)
    assert any(key.endswith("/data-key") for key in harness.objects())
    assert not any(key.endswith(".manifest") for key in harness.objects())
    harness.delete("unfinished", "--volume-id", VOLUME)
    assert harness.objects() == set()
