"""OpenStack's client, unmodified, backs up and restores on a real cluster, with a token of kubectl as its password."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.openstack import clients
from tests.openstack.clients import Outcome
from tests.support.cluster.cluster import Lab
from tests.support.cluster.namespaces import Account, Tenant
from tests.support.cluster.workloads import Errand, Mount, claim, compare_trees, run_errand
from tests.support.gateway import clouds
from tests.support.gateway.clouds import Cloud

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def endpoint(lab: Lab, release: Account) -> Iterator[str]:
    """URL of the chart's gateway."""
    yield clouds.enable(lab)
    clouds.disable(lab)


class OpenStack:
    """What a user types."""

    def __init__(self, programs: clients.Clients, cloud: Cloud) -> None:
        self._programs = programs
        self._environment = clients.login(cloud.identity, cloud.project, cloud.user("member"))

    def run(self, line: str) -> Outcome:
        """A command that must succeed."""
        outcome = self._programs.run(f"openstack {line}", self._environment)
        assert outcome.code == 0, f"{line}: {outcome.err}"
        return outcome

    def told(self, line: str) -> dict[str, Any]:
        """What a command that shows something shows."""
        found: dict[str, Any] = json.loads(self.run(f"{line} -f json").out)
        return found

    def status(self, what: str, name: str) -> str:
        """Status of a volume or of a volume backup; gone if there is none."""
        outcome = self._programs.run(f"openstack {what} show {name} -f json", self._environment)
        if outcome.code:
            assert "No " in outcome.err, outcome.err
            return "gone"
        return str(json.loads(outcome.out)["status"])


def test_volume_goes_round(lab: Lab, endpoint: str, tenant: Tenant) -> None:
    lab.apply(claim(lab, tenant.name, "files", size="1Gi"))
    make = ("python3", "/tools/trees.py", "make", "/volume/tree", "--seed", "1", "--files", "20")
    run_errand(lab, tenant.name, Errand("write", make, (Mount("files", "/volume"),)))
    with clients.running() as programs:
        user = OpenStack(programs, Cloud(lab, endpoint, tenant.name))

        made = user.told("volume backup create --name monday --property owner=me files")
        tenant.wait_until("backup", lambda: user.status("volume backup", "monday") == "available")
        (backup,) = lab.items("volumebackups", tenant.name)
        assert (backup["metadata"]["uid"], backup["status"]["phase"]) == (made["id"], "available")
        assert user.told("volume backup show monday")["metadata"] == {"owner": "me"}

        restored = user.told("volume backup restore monday copy")
        tenant.wait_until("volume", lambda: user.status("volume", restored["volume_id"]) == "available")
        assert compare_trees(lab, tenant.name, "files", "copy") == []
        assert {volume["Name"] for volume in json.loads(user.run("volume list -f json").out)} == {"files", "copy"}

        user.run(f"volume delete {restored['volume_id']}")
        user.run("volume backup delete monday")
        tenant.wait_until("deletion", lambda: user.status("volume backup", "monday") == "gone")
        tenant.wait_until("deletion", lambda: user.status("volume", restored["volume_id"]) == "gone")
    assert lab.items("volumebackups", tenant.name) == []
    assert tenant.keys() == set()
