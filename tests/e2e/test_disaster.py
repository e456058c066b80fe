"""The runbook for a lost cluster: the commands of docs/guide/disaster.md, from the check of the keys to the end.

The test loses a namespace with its objects, its Secrets and its volumes, and keeps what the runbook says to keep.
"""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cluster.toolchain import tool
from tests.e2e.conftest import TenantMaker
from tests.support.cluster.cluster import KubeCluster, Object
from tests.support.cluster.namespaces import CREDENTIALS, ENCRYPTION, Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, finish_pod, put_tools, run_pod
from tests.support.mover.mover_pods import PROGRAM
from tests.support.recovery.runbook import blocks
from tests.support.store.objects_in_store import forwarded

# The namespace is lost and made again, and every volume is copied twice.
pytestmark = [pytest.mark.e2e, pytest.mark.long, pytest.mark.timeout(900)]

WORDS = {"data-db-0": "first", "files": "second"}
"""Content of each claim. The first is that of a StatefulSet."""


class Administrator:
    """Somebody who has the runbook, the files that it says to keep, and a shell."""

    def __init__(self, tenant: Tenant, directory: Path, endpoint: str) -> None:
        account = tenant.account
        self.directory = directory
        self._names = (
            ("s3://volumebackups/my-cluster/demo", f"s3://{account.container}/{tenant.name}"),
            ("https://s3.example.com", endpoint),
            ("volumebackups", account.container),
            ("my-cluster/demo", tenant.name),
            ("demo", tenant.name),
        )
        tools = (os.path.dirname(PROGRAM), str(tool("kubectl").parent), os.environ["PATH"])
        self._environment = os.environ | {"PATH": os.pathsep.join(tools)}

    def keep(self, name: str, text: str) -> None:
        """Keep a file outside the cluster."""
        (self.directory / name).write_text(text)

    def follow(self, heading: str) -> str:
        """Run all commands of a section, and return their output."""
        return "".join(self._run(script) for script in blocks(heading))

    def written(self, heading: str) -> Object:
        """Return the object that a section shows."""
        [text] = blocks(heading, "yaml")
        found: Object = yaml.safe_load(self._named(text))
        return found

    def _named(self, text: str) -> str:
        for name, own in self._names:
            text = text.replace(name, own)
        return text

    def _run(self, script: str) -> str:
        """Run a block in a shell that knows the credentials, as the first line of the runbook says."""
        first = blocks("1. Check what you kept outside")[0].splitlines()[0]
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{first}\n{self._named(script)}"],
            cwd=self.directory,
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert done.returncode == 0, (script, done.stdout, done.stderr)
        return done.stdout


@pytest.fixture
def lost(kube: KubeCluster, make_tenant: TenantMaker, tmp_path: Path) -> Iterator[tuple[Tenant, Administrator]]:
    """Back up two volumes, keep what the runbook says, and lose the namespace."""
    tenant = make_tenant()
    for name, word in WORDS.items():
        kube.apply(claim(kube, tenant.name, name))
        write = ("python3", "-c", f"open('/volume/word', 'w').write({word!r})")
        kube.apply(OneShotPod(f"write-{name}", write, (Mount(name, "/volume"),)).manifest(kube, tenant.name))
    for name in WORDS:
        finish_pod(kube, tenant.name, f"write-{name}")
    kube.apply(*(tenant.backup(f"daily-{name}", name, deletionPolicy="Retain") for name in WORDS))
    tenant.ends(*(f"volumebackup/daily-{name}" for name in WORDS))
    with forwarded(kube) as port:
        administrator = Administrator(tenant, tmp_path, f"http://127.0.0.1:{port}")
        _keep_files(tenant, administrator)
        tenant.kubectl("delete", "namespace", tenant.name, "--timeout=180s")
        yield tenant, administrator
    tenant.kept = tenant.keys()


def _keep_files(tenant: Tenant, administrator: Administrator) -> None:
    """Keep the key, the credentials, the BackupStore and the application outside the cluster."""
    key = base64.b64decode(tenant.get("secret", ENCRYPTION)["data"]["key-1"]).decode()
    administrator.keep("key-1", key)
    credentials = tenant.get("secret", CREDENTIALS)["data"]
    lines = [f"{name}={base64.b64decode(value).decode()}\n" for name, value in credentials.items()]
    administrator.keep("s3-credentials.env", "".join(lines))
    store = administrator.written("3. Prepare the namespace")
    inside = {"endpointUrl": tenant.account.endpoint_url, "volumeSnapshotClassName": tenant.kube.snapshot_class}
    store["spec"] |= {name: value for name, value in inside.items() if value}
    administrator.keep("backupstore.yaml", yaml.safe_dump(store))
    directory = Path(administrator.directory) / "applications"
    directory.mkdir()
    (directory / "db.yaml").write_text(yaml.safe_dump(_application(tenant)))


def _application(tenant: Tenant) -> Object:
    """Return a StatefulSet whose pod prints the content of its volume."""
    program = "import time; print(open('/volume/word').read(), flush=True); time.sleep(3600)"
    container = {
        "name": "main",
        "image": tenant.kube.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-c", program],
        "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
        "volumeMounts": [{"name": "data", "mountPath": "/volume"}],
    }
    template = claim(tenant.kube, tenant.name, "data")
    spec = {
        "serviceName": "db",
        "replicas": 1,
        "selector": {"matchLabels": {"app": "db"}},
        "template": {
            "metadata": {"labels": {"app": "db"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        },
        "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": template["spec"]}],
    }
    metadata = {"name": "db", "namespace": tenant.name}
    return {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": metadata, "spec": spec}


def test_runbook_recovers_a_lost_namespace(lost: tuple[Tenant, Administrator]) -> None:
    tenant, administrator = lost
    administrator.follow("1. Check what you kept outside")
    administrator.follow("3. Prepare the namespace")
    put_tools(tenant.kube, tenant.name)
    stored = tenant.keys()
    plan = administrator.follow("4. Plan")
    assert "2 claims: 2 planned" in plan
    done = administrator.follow("5. Apply")
    assert "2 claims: 2 restored" in done
    assert administrator.follow("5. Apply") == done
    # Both ways make the same objects, so the second one finds all of them.
    administrator.follow("With GitOps instead")
    restores = tenant.kubectl("get", "volumerestores", "-o", "name").split()
    assert len(restores) == len(WORDS)
    uids = {name: tenant.get("pvc", name)["metadata"]["uid"] for name in WORDS}

    administrator.follow("6. Bring the applications back")
    tenant.kubectl("rollout", "status", "statefulset/db", "--timeout=180s")
    assert tenant.kubectl("logs", "db-0").strip() == WORDS["data-db-0"]
    read = OneShotPod("read", ("python3", "-c", "print(open('/volume/word').read())"), (Mount("files", "/volume"),))
    assert run_pod(tenant.kube, tenant.name, read).strip() == WORDS["files"]
    assert {name: tenant.get("pvc", name)["metadata"]["uid"] for name in WORDS} == uids
    assert tenant.keys() == stored, "the BackupStore is read-only"

    administrator.follow("7. Return to normal")
    tenant.kubectl("wait", "backupstore/default", "--for=jsonpath={.status.access}=ReadWrite", "--timeout=60s")
    tenant.kubectl("delete", "statefulset", "db", "--timeout=60s")
    tenant.kubectl("wait", "pod/db-0", "--for=delete", "--timeout=60s")
    tenant.kube.apply(tenant.backup("after", "files"))
    tenant.ends("volumebackup/after")
    tenant.delete("volumebackup/after")
    assert tenant.keys() == stored
