"""The Python interfaces of OpenStack's clients, used as in their documentation. Prints the results as JSON.

Runs in the virtualenv of tests/openstack/locks/clients.txt, or clients-v2.txt for ``cinderclient 2``.
``cinderclient VERSION VOLUME``: python-cinderclient. ``sdk VOLUME``: openstacksdk.
"""

import json
import os
import sys

from keystoneauth1 import session
from keystoneauth1.identity import v3


def main(argv: list[str]) -> int:
    """Run the client that ``argv`` names."""
    program, *arguments = argv
    result = {"cinderclient": _cinderclient, "sdk": _sdk}[program](*arguments)
    print(json.dumps(result))
    return 0


def _session() -> session.Session:
    given = {
        name: os.environ[f"OS_{name.upper()}"]
        for name in ("auth_url", "project_name", "username", "password", "user_domain_id", "project_domain_id")
    }
    return session.Session(auth=v3.Password(**given))


def _cinderclient(version: str, volume: str) -> dict[str, object]:
    """Create, show, update and delete a backup, without an operator that completes it."""
    from cinderclient import client  # noqa: PLC0415  # each environment has only one of the clients

    service = "volumev2" if version.startswith("2") else "volumev3"
    cinder = client.Client(version, session=_session(), service_type=service)
    made = cinder.backups.create(volume, name="by cinderclient", description="text", force=True)
    shown = cinder.backups.get(made.id)
    found = cinder.backups.list(search_opts={"name": "by cinderclient"})
    return {
        "made": [made.id, made.name],
        "shown": [shown.id, shown.name, shown.description, shown.status, shown.volume_id, shown.size],
        "found": [backup.id for backup in found],
        "volume": cinder.volumes.get(volume).name,
        "snapshots": [snapshot.name for snapshot in cinder.volume_snapshots.list()],
    }


def _sdk(volume: str) -> dict[str, object]:
    """Do the same with openstacksdk."""
    import openstack  # noqa: PLC0415  # each environment has only one of the clients

    storage = openstack.connection.Connection(session=_session()).block_storage
    made = storage.create_backup(volume_id=volume, name="by sdk", description="text", force=True)
    shown = storage.get_backup(made.id)
    return {
        "made": [made.id, made.name],
        "shown": [shown.id, shown.name, shown.description, shown.status, shown.volume_id, shown.size],
        "found": [backup.id for backup in storage.backups(details=False, name="by sdk")],
        "volume": storage.find_volume(storage.get_volume(volume).name).name,
        "snapshots": [snapshot.name for snapshot in storage.snapshots()],
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
