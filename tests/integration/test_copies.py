"""A mover copies backups between two real S3 servers with different credentials, and the copy restores alone."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cinderblock.api.layout import manifest_key
from cinderblock.api.mover import CopyTask, MoverOperation, MoverReport, MoverTask, task_to_env
from cinderblock.api.v1alpha1.store import StoreAccess
from cinderblock.mover.main import main
from cinderblock.restorer.restorer import run_restore
from cinderblock.store.base import ObjectStore
from cinderblock.store.factory import open_store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.mover.backups import KEYS, PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.compare import compare_trees
from tests.support.mover.trees import edit_tree, make_tree
from tests.unit.mover.test_main import mount

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="restored owners need root"),
]

CONTAINER, OFFSITE, ELSEWHERE = "volumebackups", "offsite", "other/place"


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[S3Server, S3Server]]:
    with s3_server() as primary, s3_server() as target:
        yield primary, target


class Pod:
    """The mover's pod, with the Secrets of two stores."""

    def __init__(self, path: Path, primary: S3Server, target: S3Server) -> None:
        self.secrets = path / "secrets"
        self.log = path / "termination-log"
        self.log.touch()
        for prefix, server in (("", primary), ("target-", target)):
            directory = self.secrets / f"{prefix}credentials"
            directory.mkdir(parents=True)
            (directory / "AWS_ACCESS_KEY_ID").write_text(server.credentials.access_key)
            (directory / "AWS_SECRET_ACCESS_KEY").write_text(server.credentials.secret_key)
            mount(self.secrets / f"{prefix}encryption", KEYS)

    def run(self, task: MoverTask) -> MoverReport:
        code = main(
            task_to_env(task), secrets_directory=str(self.secrets), termination_log=str(self.log), out=io.StringIO()
        )
        report = MoverReport.model_validate_json(self.log.read_bytes())
        assert (code == 0) == report.succeeded
        return report


def test_copy_restores_byte_for_byte_after_the_primary_is_gone(
    tmp_path: Path, servers: tuple[S3Server, S3Server]
) -> None:
    primary, target = servers
    assert primary.credentials != target.credentials
    location = primary.location(CONTAINER, prefix=PREFIX, create_container=True)
    offsite = target.location(OFFSITE, prefix=ELSEWHERE, create_container=True)
    tree = tmp_path / "tree"
    with closing(open_store(location, primary.credentials)) as store:
        store.check()
        backups = Backups(store, key_ring())
        make_tree(str(tree))
        backups.back_up(tree, "one")
        edit_tree(str(tree))
        backups.back_up(tree, "two", "one")
        task = backups.task(MoverOperation.COPY, "one")
        expected = [backups.expected("one"), backups.expected("missing"), backups.expected("two")]
        task = task.model_copy(
            update={
                "store": location.model_copy(update={"access": StoreAccess.READ_ONLY}),
                "copies": CopyTask(target=offsite, backups=expected),
            }
        )
        report = Pod(tmp_path, primary, target).run(task)
        assert [(found.backup_id, found.reason) for found in report.copies] == [
            ("one", ""),
            ("missing", "ManifestMissing"),
            ("two", ""),
        ]
        sizes = sum(info.size for info in store.list(""))
        assert report.stored_bytes == sum(found.bytes_sent for found in report.copies) == sizes
        store.delete([info.key for info in store.list("")])
    with closing(open_store(offsite, target.credentials)) as copied:
        _restore(backups, copied, tmp_path / "restored")
    assert not compare_trees(str(tree), str(tmp_path / "restored"))


def _restore(backups: Backups, store: ObjectStore, path: Path) -> None:
    path.mkdir()
    task = backups.task(MoverOperation.RESTORE, "two", path=path)
    place = task.store.model_copy(update={"prefix": ELSEWHERE})
    key = manifest_key(ELSEWHERE, VOLUME, "two")
    assert run_restore(task.model_copy(update={"store": place, "manifest": key}), store, key_ring()).succeeded
