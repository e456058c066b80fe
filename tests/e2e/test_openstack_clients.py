"""OpenStack's unmodified client backs up and restores on a real cluster, with a Kubernetes token as its password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.openstack import clients
from tests.openstack.clients import Outcome
from tests.support.cluster.cluster import KubeCluster
from tests.support.cluster.namespaces import Account, Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, compare_trees, run_pod
from tests.support.gateway import clouds
from tests.support.gateway.clouds import Cloud

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def endpoint(kube: KubeCluster, release: Account) -> Iterator[str]:
    """Return the URL of the chart's gateway."""
    yield clouds.enable(kube)
    clouds.disable(kube)


class OpenStack:
    """OpenStack's command-line client for one user."""

    def __init__(self, programs: clients.Clients, cloud: Cloud) -> None:
        self._programs = programs
        self._environment = clients.login(cloud.identity, cloud.project, cloud.user("member"))

    def run(self, line: str) -> Outcome:
        """Run a command that must succeed."""
        outcome = self._programs.run(f"openstack {line}", self._environment)
        assert outcome.code == 0, f"{line}: {outcome.err}"
        return outcome

    def show(self, line: str) -> dict[str, Any]:
        """Return the output of a command that shows an object."""
        found: dict[str, Any] = json.loads(self.run(f"{line} -f json").out)
        return found

    def status(self, what: str, name: str) -> str:
        """Return the status of a volume or of a volume backup, or "gone" if it does not exist."""
        outcome = self._programs.run(f"openstack {what} show {name} -f json", self._environment)
        if outcome.code:
            assert "No " in outcome.err, outcome.err
            return "gone"
        return str(json.loads(outcome.out)["status"])


def test_openstack_client_backs_up_and_restores_a_volume(kube: KubeCluster, endpoint: str, tenant: Tenant) -> None:
    kube.apply(claim(kube, tenant.name, "files", size="1Gi"))
    make = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1", "--files", "20")
    run_pod(kube, tenant.name, OneShotPod("write", make, (Mount("files", "/volume"),)))
    with clients.running() as programs:
        user = OpenStack(programs, Cloud(kube, endpoint, tenant.name))

        made = user.show("volume backup create --name monday --property owner=me files")
        tenant.wait_until("backup", lambda: user.status("volume backup", "monday") == "available")
        (backup,) = kube.items("volumebackups", tenant.name)
        assert (backup["metadata"]["uid"], backup["status"]["phase"]) == (made["id"], "available")
        assert user.show("volume backup show monday")["metadata"] == {"owner": "me"}

        restored = user.show("volume backup restore monday copy")
        tenant.wait_until("volume", lambda: user.status("volume", restored["volume_id"]) == "available")
        assert compare_trees(kube, tenant.name, "files", "copy") == []
        assert {volume["Name"] for volume in json.loads(user.run("volume list -f json").out)} == {"files", "copy"}

        user.run(f"volume delete {restored['volume_id']}")
        user.run("volume backup delete monday")
        tenant.wait_until("deletion", lambda: user.status("volume backup", "monday") == "gone")
        tenant.wait_until("deletion", lambda: user.status("volume", restored["volume_id"]) == "gone")
    assert kube.items("volumebackups", tenant.name) == []
    assert tenant.keys() == set()
