"""A recovery in small: the volumes of a namespace come back in another one, from the bucket and the key alone."""

from __future__ import annotations

import base64
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tests.demo.story import Story
from tests.support.cluster.cluster import KubeCluster, KubeClusterError
from tests.support.cluster.workloads import Mount, OneShotPod, digests, finish_pod, put_tools
from tests.support.mover.mover_pods import PROGRAM
from tests.support.store.objects_in_store import EmbeddedStore, forwarded

RECOVERED: Final = "demo-recovered"
"""The namespace that gets the volumes, as in a new cluster."""
_TREE: Final = ("python3", "/tools/tree_digest.py", "/volume/tree")


def recover(story: Story, kube: KubeCluster, namespace: str, disk_bytes: int) -> None:
    """Recover the claims ``files`` and ``disk`` of a namespace, and compare them with the ones that exist.

    Raises KubeClusterError if anything differs.
    """
    expected = _contents(kube, namespace, disk_bytes)
    spec = (kube.get("backupstore", "default", namespace) or {})["spec"]
    credentials, keys = (spec[f"{what}SecretRef"]["name"] for what in ("credentials", "encryption"))
    secrets = {name: _secret(kube, namespace, name) for name in (credentials, keys)}
    _prepare(story, kube, spec, secrets)
    store = EmbeddedStore.of(kube, namespace)
    # A newer backup of the files has a later state: a person may choose any.
    chosen = kube.get("volumebackup", "files-full", namespace) or {}
    with forwarded(kube) as port, tempfile.TemporaryDirectory(prefix="cinderblock-demo-") as directory:
        key_id, key = next(iter(secrets[keys].items()))
        path = Path(directory) / key_id
        path.write_bytes(key)
        words = [
            *("--from", f"s3://{store.container}/{store.prefix}", "--endpoint-url", f"http://127.0.0.1:{port}"),
            *("--encryption-key-file", str(path), "--backup", chosen["status"]["id"]),
            *("--namespace-map", f"{namespace}={RECOVERED}"),
        ]
        for action in ("plan", "apply"):
            _run(story, secrets[credentials], ["recover", action, *words])
    story.show(kube, "-n", RECOVERED, "get", "volumebackups,volumerestores,pvc")
    recovered = _contents(kube, RECOVERED, disk_bytes)
    for name, content in expected.items():
        if recovered[name] != content:
            raise KubeClusterError(f"the recovered {name} differ: {content} and {recovered[name]}")
        story.note(f"{name}: equal to the lost ones, SHA-256 {content.split()[0]}")


def remove(kube: KubeCluster) -> None:
    """Remove the objects of the namespace while the operator still runs."""
    kube.kubectl("delete", "volumerestores,volumebackups", "--all", "-n", RECOVERED, "--timeout=90s", check=False)


def _contents(kube: KubeCluster, namespace: str, disk_bytes: int) -> dict[str, str]:
    """Return digests of the files and of the device."""
    tree = OneShotPod("digest-tree", _TREE, (Mount("files", "/volume"),))
    kube.apply(tree.manifest(kube, namespace))
    [disk] = digests(kube, namespace, ("disk",), disk_bytes)
    return {"files": finish_pod(kube, namespace, tree.name).strip(), "bytes of the disk": disk}


def _secret(kube: KubeCluster, namespace: str, name: str) -> dict[str, bytes]:
    data = (kube.get("secret", name, namespace) or {}).get("data", {})
    return {key: base64.b64decode(value) for key, value in data.items()}


def _prepare(story: Story, kube: KubeCluster, spec: dict[str, object], secrets: dict[str, dict[str, bytes]]) -> None:
    """Make a namespace as step 3 of the runbook does: the Secrets, and a read-only BackupStore."""
    kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": RECOVERED}})
    put_tools(kube, RECOVERED)
    for name, data in secrets.items():
        encoded = {key: base64.b64encode(value).decode() for key, value in data.items()}
        metadata = {"name": name, "namespace": RECOVERED}
        kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": encoded})
    annotations = {"cinderblock.io/is-default-store": "true"}
    body = {"apiVersion": "cinderblock.io/v1alpha1", "kind": "BackupStore", "spec": spec | {"access": "ReadOnly"}}
    kube.apply(body | {"metadata": {"name": "default", "namespace": RECOVERED, "annotations": annotations}})
    story.note(f"namespace {RECOVERED} has the credentials, the key and a read-only BackupStore")


def _run(story: Story, credentials: dict[str, bytes], words: list[str]) -> None:
    """Run our command line in front of everybody, on this machine."""
    story.note(f"$ cinderblock {' '.join(words)}")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {name: value.decode() for name, value in credentials.items()}
    done = subprocess.run(
        [PROGRAM, *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    story.note(done.stdout)
    story.note(done.stderr)
    if done.returncode:
        raise KubeClusterError(f"cinderblock {' '.join(words[:2])} ended with {done.returncode}: {done.stderr}")
