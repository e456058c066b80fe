"""One backup or restore by Cinder's S3 driver. Runs in the virtualenv of tests/openstack/locks/cinder.txt.

    python cinder_driver.py prepare DIRECTORY ENDPOINT CONTAINER
    python cinder_driver.py backup DIRECTORY PATH full|incremental
    python cinder_driver.py restore DIRECTORY PATH SIZE

The driver is called as ``cinder.backup.manager.BackupManager`` calls it, with rows of a SQLite database in DIRECTORY,
and with the file PATH in the place of an attached device. The last two print, as JSON, the seconds from the call to the
return: ``wall``, and ``cpu`` of the whole process. Credentials are those of the environment.
"""

from cinder import monkey_patch

monkey_patch.patch()  # before anything else is imported, as in cinder.cmd.backup

import contextlib
import json
import os
import sys
import time
from pathlib import Path

from cinder import context, objects, rpc, utils

objects.register_all()  # Cinder's modules use the registered names while they are imported

from cinder.backup.drivers import s3
from cinder.common import config
from cinder.db import migration

OWNER = "0123456789abcdef0123456789abcdef"
_GIB = 1 << 30
_CONFIGURATION = """\
[DEFAULT]
transport_url = fake:/
state_path = {directory}
backup_s3_endpoint_url = {endpoint}
backup_s3_store_bucket = {container}
[database]
connection = sqlite:///{directory}/cinder.sqlite
[oslo_concurrency]
lock_path = {directory}
"""


class Service:
    """Stand in for Cinder's backup service around its driver, for one volume and its newest backup."""

    def __init__(self, directory: Path) -> None:
        """Read the configuration that ``prepare`` wrote."""
        config.CONF(["--config-file", str(directory / "cinder.conf")], project="cinder", version="none")
        config.CONF.set_override("backup_s3_store_access_key", os.environ["AWS_ACCESS_KEY_ID"])
        config.CONF.set_override("backup_s3_store_secret_key", os.environ["AWS_SECRET_ACCESS_KEY"])
        rpc.init(config.CONF)
        self._context = context.RequestContext(OWNER, OWNER, is_admin=True)
        self._newest = directory / "newest"

    def backup(self, path: str, kind: str) -> None:
        """Back up a file. An incremental builds on the newest backup (BackupManager.continue_backup)."""
        parent = self._newest_backup() if kind == "incremental" else None
        volume = parent.volume_id if parent else self._new_volume(-(-os.path.getsize(path) // _GIB))
        backup = objects.Backup(
            context=self._context,
            status="creating",
            volume_id=volume,
            parent_id=parent.id if parent else None,
            size=objects.Volume.get_by_id(self._context, volume).size,
            user_id=OWNER,
            project_id=OWNER,
            host="bench",
        )
        backup.create()
        driver = s3.S3BackupDriver(self._context)
        with open(path, "rb") as device, _timed():
            driver.backup(backup, utils.tpool_wrap(device))
        self._newest.write_text(backup.id)

    def restore(self, path: str, size: str) -> None:
        """Restore the newest backup (BackupManager._run_restore): to a new volume, or to one that has data."""
        is_new = not os.path.exists(path)
        if is_new:
            with open(path, "xb") as device:
                device.truncate(int(size))
        backup = self._newest_backup()
        backup.status = "restoring"
        backup.save()
        driver = s3.S3BackupDriver(self._context)
        # Cinder opens a device with "wb"; of a file that would leave nothing.
        with open(path, "r+b") as device, _timed():
            driver.restore(backup, backup.volume_id, utils.tpool_wrap(device), is_new)

    def _newest_backup(self) -> objects.Backup:
        return objects.Backup.get_by_id(self._context, self._newest.read_text())

    def _new_volume(self, size: int) -> str:
        volume = objects.Volume(
            context=self._context, status="backing-up", size=size, host="bench", user_id=OWNER, project_id=OWNER
        )
        volume.create()
        return volume.id


@contextlib.contextmanager
def _timed():
    """Print what the block took."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}))


def main(what: str, directory: str, *arguments: str) -> None:
    """Do one of these."""
    if what == "prepare":
        endpoint, container = arguments
        written = _CONFIGURATION.format(directory=directory, endpoint=endpoint, container=container)
        Path(directory, "cinder.conf").write_text(written)
        Service(Path(directory))
        migration.db_sync()
    elif what == "backup":
        Service(Path(directory)).backup(*arguments)
    else:
        Service(Path(directory)).restore(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
