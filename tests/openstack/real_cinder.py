"""The real Cinder API of the PyPI package ``cinder``, in this process, on SQLite. Runs in a virtualenv of its own.

Everything from the HTTP request to the database row is Cinder's own code: router, policies, schemas, views, quotas,
object layer. Only calls to other processes are replaced. Messages to the scheduler, the volume service and the backup
service are dropped. A new volume is available at once. A record is exported as the backup manager does it
(``cinder.backup.manager.BackupManager.export_record``).

The caller is in the headers of Keystone's middleware: ``X-User-Id``, ``X-Project-Id``, ``X-Roles``.
"""

import datetime as dt
import json
import sys
import uuid
from pathlib import Path
from unittest import mock

import webob
from cinder import context, objects, rpc

objects.register_all()  # Cinder's modules use the registered names while they are imported

from cinder.api import versions
from cinder.api.middleware import auth, fault, request_id
from cinder.api.v3 import router
from cinder.backup import rpcapi as backup_rpcapi
from cinder.common import config
from cinder.db import api as database
from cinder.db import migration
from cinder.scheduler import rpcapi as scheduler_rpcapi
from cinder.volume import rpcapi as volume_rpcapi
from oslo_config import cfg
from oslo_middleware import sizelimit
from oslo_utils import timeutils
from paste import urlmap

DRIVER = "cinder.backup.drivers.s3.S3BackupDriver"
HOST = "storage@lvm#pool"
SERVICES = {"cinder-scheduler": "storage", "cinder-volume": "storage@lvm", "cinder-backup": "storage"}
USER = "0123456789abcdef0123456789abcdef"

_CONFIGURATION = """\
[DEFAULT]
transport_url = fake:/
state_path = {directory}
service_down_time = 1000000000
resource_query_filters_file = {directory}/filters.json
[database]
connection = sqlite:///{directory}/cinder.sqlite
[oslo_concurrency]
lock_path = {directory}
[coordination]
backend_url = file://{directory}
"""


class Cinder:
    """The service. There can be one per process, because Cinder's configuration is global.

    Attributes:
        project: id of the project whose volumes and backups are planted and asked for.
    """

    def __init__(self, directory: Path) -> None:
        """Create the database in ``directory`` and start the service."""
        self.project = ""
        _configure(directory)
        migration.db_sync()
        rpc.init(cfg.CONF)
        _cut_off_other_processes()
        self._application = _application()
        for binary, host in SERVICES.items():
            service = objects.Service(
                context=context.get_admin_context(), binary=binary, topic=binary, host=host, availability_zone="nova"
            )
            service.create()
            self._is_up(service)

    def new_project(self) -> None:
        """Switch to a new, empty project."""
        self.project = uuid.uuid4().hex

    def call(self, request: webob.Request, role: str) -> webob.Response:
        """Return the response to a request of a user with ``role`` in the project."""
        request.headers["X-User-Id"] = USER
        request.headers["X-Project-Id"] = self.project
        request.headers["X-Roles"] = {"admin": "admin,member,reader", "member": "member,reader"}.get(role, role)
        return request.get_response(self._application)

    def plant(self, kind: str, **fields) -> str:
        """Create a volume, snapshot or backup with fields of tests.openstack.scenarios. Returns its id."""
        made: str = getattr(self, f"_plant_{kind}")(**fields)
        return made

    def _plant_volume(self, name: str, status: str = "available", size: int = 1, **fields) -> str:
        volume = objects.Volume(
            context=self._context,
            display_name=name,
            status=status,
            size=size,
            host=HOST,
            user_id=USER,
            project_id=self.project,
            availability_zone="nova",
            attach_status="attached" if status == "in-use" else "detached",
            **fields,
        )
        volume.create()
        return volume.id

    def _plant_snapshot(self, name: str, volume: str, status: str = "available") -> str:
        snapshot = objects.Snapshot(
            context=self._context,
            display_name=name,
            status=status,
            volume_id=volume,
            volume_size=1,
            user_id=USER,
            project_id=self.project,
            metadata={},
        )
        snapshot.create()
        return snapshot.id

    def _plant_backup(
        self, name: str, volume: str, status: str = "available", age: int = 1, parent: str | None = None, **fields
    ) -> str:
        backup = objects.Backup(
            context=self._context,
            display_name=name,
            status=status,
            volume_id=volume,
            parent_id=parent,
            user_id=USER,
            project_id=self.project,
            service=DRIVER,
            service_metadata="volume_1/20260101000000/az_nova_backup_1",
            host="storage",
            availability_zone="nova",
            **_in_cinders_words(fields),
        )
        backup.create()
        made = timeutils.utcnow() - dt.timedelta(minutes=age)
        created = made.replace(microsecond=123456, tzinfo=dt.UTC)
        backup.update({"created_at": created, "data_timestamp": created})
        backup.save()
        if parent:
            self.change("backup", parent, num_dependent_backups=1)
        return backup.id

    def change(self, kind: str, identity: str, **fields) -> None:
        """Change a row, as the service behind the API would."""
        kinds = {"backup": objects.Backup, "volume": objects.Volume, "snapshot": objects.Snapshot}
        found = kinds[kind].get_by_id(self._context, identity)
        driver = {"service": DRIVER} if kind == "backup" else {}
        found.update(driver | fields)
        found.save()

    def remove(self, kind: str, identity: str) -> None:
        """Remove a row, as the service behind the API would."""
        kinds = {"backup": objects.Backup, "volume": objects.Volume, "snapshot": objects.Snapshot}
        kinds[kind].get_by_id(self._context, identity).destroy()

    @property
    def _context(self) -> context.RequestContext:
        return context.RequestContext(USER, self.project, is_admin=True)

    def _is_up(self, service: objects.Service) -> None:
        service.report_count = 1
        service.save()


def _in_cinders_words(fields):
    """Return fields with the names of the database."""
    return {{"description": "display_description"}.get(name, name): value for name, value in fields.items()}


def _configure(directory: Path) -> None:
    """Set Cinder's configuration: its defaults, except files in ``directory`` and a message bus without receivers.

    And users may search for a part of a name (``name~``), which an administrator has to allow.
    """
    file = directory / "cinder.conf"
    file.write_text(_CONFIGURATION.format(directory=directory))
    filters = json.loads(Path(sys.prefix, "etc/cinder/resource_filters.json").read_text())
    filters["backup"] += [f"{name}~" for name in filters["backup"]]
    (directory / "filters.json").write_text(json.dumps(filters))
    config.CONF(["--config-file", str(file)], project="cinder", version="none")


def _application():
    """Return Cinder's paste pipeline ``keystone`` without Keystone's middleware (etc/cinder/api-paste.ini)."""
    api = auth.CinderKeystoneContext(router.APIRouter.factory({}))
    served = {"/": versions.Versions.factory({}), "/v3": sizelimit.RequestBodySizeLimiter(api)}
    application = urlmap.URLMap()
    for path, inner in served.items():
        application[path] = request_id.RequestId(fault.FaultWrapper(inner))
    return application


def _cut_off_other_processes() -> None:
    """Answer the API's calls to other services, and drop its messages to them."""

    def make_available(_self, caller, volume, *_arguments, **_options) -> None:
        database.volume_update(caller.elevated(), volume.id, {"status": "available", "host": HOST})

    def export(_self, _context, backup) -> dict[str, str]:
        return {"backup_service": backup.service, "backup_url": backup.encode_record(driver_info={})}

    def can_force(_self, _context, _host) -> bool:
        return True

    mock.patch.object(scheduler_rpcapi.SchedulerAPI, "create_volume", make_available).start()
    mock.patch.object(backup_rpcapi.BackupAPI, "export_record", export).start()
    mock.patch.object(backup_rpcapi.BackupAPI, "check_support_to_force_delete", can_force).start()
    renamed = {
        scheduler_rpcapi.SchedulerAPI: ("create_backup", "create_snapshot"),
        backup_rpcapi.BackupAPI: ("restore_backup", "delete_backup", "reset_status", "import_record"),
        volume_rpcapi.VolumeAPI: ("create_snapshot", "delete_snapshot", "delete_volume"),
    }
    for api, names in renamed.items():
        for name in names:
            mock.patch.object(api, name, return_value=None).start()


if __name__ == "__main__":
    sys.exit("This module is used by tests.openstack.record")
