"""OpenStack's integration tests of volume backups against the gateway on a real cluster: ``make tempest``.

Tempest is unmodified. Its configuration has three users in one project and neither a compute nor an image service, so
it skips the tests that boot servers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.openstack import environments
from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, alone, install, uninstall
from tests.support.cluster.namespaces import HOME
from tests.support.gateway import clouds
from tests.support.gateway.clouds import Cloud

MODULES = (
    "tempest.api.volume.test_volumes_backup",
    "tempest.api.volume.admin.test_volumes_backup",
    "tempest.api.volume.test_volumes_snapshots.VolumesSnapshotTestJSON.test_snapshot_backup",
)
ROLES = ("member", "reader", "admin")

_CONFIGURATION = """\
[auth]
use_dynamic_credentials = False
test_accounts_file = {directory}/accounts.yaml
default_credentials_domain_name = Default
[identity]
auth_version = v3
uri_v3 = {identity}
[service_available]
cinder = True
nova = False
glance = False
swift = False
neutron = True
[volume]
backup_driver = s3
min_microversion = 3.0
max_microversion = latest
build_interval = 1
build_timeout = 120
[oslo_concurrency]
lock_path = {directory}
"""
"""Without ``neutron``, tempest skips the tests of backups, although they do not use it."""


def main(arguments: list[str]) -> int:
    """Install the chart, run the named tests or all tests of backups, and clean up."""
    kube = KubeCluster.from_environment()
    with alone():
        install(kube, [HOME])
        try:
            cloud = Cloud(kube, clouds.enable(kube), HOME)
            return _run(cloud, arguments or list(MODULES))
        finally:
            uninstall(kube)
            kube.kubectl("delete", "namespace", HOME, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")


def _run(cloud: Cloud, tests: list[str]) -> int:
    with tempfile.TemporaryDirectory(prefix="tempest-") as directory:
        Path(directory, "tempest.conf").write_text(
            _CONFIGURATION.format(directory=directory, identity=cloud.identity), "utf-8"
        )
        Path(directory, "accounts.yaml").write_text(yaml.safe_dump([_account(cloud, role) for role in ROLES]), "utf-8")
        variables = {"TEMPEST_CONFIG_DIR": directory, "TEMPEST_CONFIG": "tempest.conf", "PYTHONWARNINGS": "ignore"}
        python = environments.programs("clients") / "python"
        done = subprocess.run(
            [python, "-m", "testtools.run", *tests], env=os.environ | variables, cwd=directory, check=False
        )
        if done.returncode:
            print(cloud.kube.diagnose(cloud.project))
        return done.returncode


def _account(cloud: Cloud, role: str) -> dict[str, object]:
    account: dict[str, object] = {
        "username": role,
        "password": cloud.user(role),
        "project_name": cloud.project,
        "roles": [role],
    }
    return account | ({"types": ["admin"]} if role == "admin" else {})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
