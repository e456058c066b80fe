"""Movers work within the Pod Security level of their namespace, and report what they cannot keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.cluster.cluster import Object
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = pytest.mark.e2e

LEVEL = "pod-security.kubernetes.io/enforce"
USER = 1000
TEMPLATE = {
    "podSecurityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "securityContext": {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    },
}
"""The security context that `restricted` requires."""
WRITE = "mkdir /volume/tree && cd /volume/tree && echo one > one && echo two > two && chmod 705 two && chown 7:7 one"
READ = "cd /volume/tree && cat one two && stat -c '%n %a' two && stat -c '%u' one"


def _run(tenant: Tenant, name: str, script: str, volume: str, **level: Any) -> str:
    """Run a shell in a pod, with the rights of the template if ``level`` says so."""
    pod: Object = OneShotPod(name, ("sh", "-c", script), (Mount(volume, "/volume"),)).manifest(tenant.kube, tenant.name)
    if level:
        # Without fsGroup: the kubelet would change the modes that were restored.
        context = {key: value for key, value in TEMPLATE["podSecurityContext"].items() if key != "fsGroup"}
        pod["spec"]["securityContext"] = context
        pod["spec"]["containers"][0]["securityContext"] = TEMPLATE["securityContext"]
    tenant.kube.apply(pod)
    ended = tenant.wait_until(
        f"end of {name}", lambda: tenant.get("pod", name)["status"]["phase"] in ("Succeeded", "Failed"), timeout=90
    )
    assert ended
    output = tenant.kubectl("logs", name)
    tenant.kubectl("delete", "pod", name, "--timeout=60s")
    return output


@pytest.fixture
def restricted(make_tenant: Callable[..., Tenant]) -> Tenant:
    """Return a namespace that enforces `restricted`, with a volume that was filled before."""
    tenant = make_tenant()
    tenant.kube.apply(claim(tenant.kube, tenant.name, "files", size="64Mi"))
    run_pod(tenant.kube, tenant.name, OneShotPod("write", ("sh", "-c", WRITE), (Mount("files", "/volume"),)))
    tenant.kubectl("label", "namespace", tenant.name, f"{LEVEL}=restricted")
    return tenant


def test_restricted_movers_run_and_report_what_they_cannot_keep(restricted: Tenant) -> None:
    restricted.kube.apply(restricted.store("default", is_default=True, mover=TEMPLATE))
    restricted.kube.apply(restricted.backup("full", "files"))
    restricted.ends("volumebackup/full")
    restricted.kube.apply(restricted.restore("back", "full", name="restored"))
    restricted.ends("volumerestore/back")
    assert _run(restricted, "read", READ, "restored", restricted=True).split() == [
        "one",
        "two",
        "two",
        "705",
        str(USER),
    ]
    [message] = [event["message"] for event in restricted.events("back") if event["reason"] == "NotAllKept"]
    assert "owner" in message


def test_refused_mover_is_reported_in_the_policys_words(restricted: Tenant) -> None:
    restricted.kube.apply(restricted.backup("full", "files"))

    def message() -> str:
        conditions = restricted.get("vb", "full").get("status", {}).get("conditions", [])
        output: str = conditions[0]["message"] if conditions else ""
        return output if "PodSecurity" in output else ""

    assert "restricted" in restricted.wait_until("refusal in the status", message, timeout=60)
