"""Volumes, and pods that write and read them. The pods run our image, because it contains Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster.cluster import KubeCluster, KubeClusterError

TOOLS = "tools"
"""ConfigMap with the programs that run in pods, mounted at /tools."""
PROGRAMS = ("trees.py", "tree_digest.py", "compare.py", "devices.py", "commits.py", "intruder.py")

Object = dict[str, Any]


@dataclass(frozen=True)
class Mount:
    """A claim in a pod: mounted at a directory, or as a device."""

    claim: str
    path: str
    is_block: bool = False


@dataclass(frozen=True)
class OneShotPod:
    """A pod that runs one program and ends."""

    name: str
    command: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    def manifest(self, kube: KubeCluster, namespace: str) -> Object:
        """Return the pod.

        It runs as root with a container's default capabilities, so that it can create every kind of file.
        """
        volumes: list[Object] = [{"name": TOOLS, "configMap": {"name": TOOLS}}]
        container: Object = {
            "name": "main",
            "image": kube.image,
            "imagePullPolicy": "IfNotPresent",
            "command": list(self.command),
            "securityContext": {"runAsUser": 0, "runAsNonRoot": False},
            "volumeMounts": [{"name": TOOLS, "mountPath": "/tools"}],
            "volumeDevices": [],
        }
        for number, mount in enumerate(self.mounts):
            volumes.append({"name": f"v{number}", "persistentVolumeClaim": {"claimName": mount.claim}})
            if mount.is_block:
                container["volumeDevices"].append({"name": f"v{number}", "devicePath": mount.path})
            else:
                container["volumeMounts"].append({"name": f"v{number}", "mountPath": mount.path})
        spec = {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "containers": [container],
            "volumes": volumes,
        }
        metadata = {"name": self.name, "namespace": namespace, "labels": self.labels}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def claim(kube: KubeCluster, namespace: str, name: str, **options: Any) -> Object:
    """Return a PersistentVolumeClaim. Options: size, block, storage_class."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Block" if options.get("block") else "Filesystem",
        "resources": {"requests": {"storage": options.get("size", "1Gi")}},
    }
    storage_class = options.get("storage_class", kube.storage_class)
    if storage_class:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def put_tools(kube: KubeCluster, namespace: str) -> None:
    """Create the ConfigMap with the programs, and wait until the namespace admits pods."""
    here = Path(__file__).parents[1] / "mover"
    files = [f"--from-file={here / name}" for name in PROGRAMS]
    text = kube.kubectl("create", "configmap", TOOLS, "-n", namespace, *files, "--dry-run=client", "-o", "yaml")
    kube.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    kube.wait_until(
        f"default ServiceAccount in {namespace}", lambda: kube.get("serviceaccount", "default", namespace), timeout=30
    )


def run_pod(kube: KubeCluster, namespace: str, one_shot: OneShotPod, *, timeout: float = 90) -> str:
    """Run a pod to completion, remove it, and return its output. Raises KubeClusterError if it failed."""
    kube.apply(one_shot.manifest(kube, namespace))
    return finish_pod(kube, namespace, one_shot.name, timeout=timeout)


def finish_pod(kube: KubeCluster, namespace: str, name: str, *, timeout: float = 90) -> str:
    """Wait until a pod has completed, remove it, and return its output. Raises KubeClusterError if it failed."""

    def phase() -> str | None:
        pod = kube.get("pod", name, namespace)
        found = pod["status"].get("phase", "") if pod else ""
        return found if found in ("Succeeded", "Failed") else None

    ended = kube.wait_until(f"end of pod {name}", phase, timeout=timeout, details=lambda: kube.diagnose(namespace))
    printed = kube.kubectl("logs", "-n", namespace, name)
    kube.kubectl("delete", "pod", name, "-n", namespace, "--timeout=60s")
    if ended == "Failed":
        raise KubeClusterError(f"pod {name} failed:\n{printed}")
    return printed


def compare_trees(kube: KubeCluster, namespace: str, left: str, right: str) -> list[str]:
    """Return the differences between the trees in two claims: content, owners, modes, times, attributes, links."""
    program = (
        "import subprocess, sys; done = subprocess.run([sys.executable, '/tools/compare.py', '/left', '/right'],"
        " stdout=subprocess.PIPE, text=True); print(done.stdout, end=''); sys.exit(done.returncode not in (0, 1))"
    )
    one_shot = OneShotPod(
        f"compare-{left}-{right}"[:60].rstrip("-."),
        ("python3", "-c", program),
        (Mount(left, "/left"), Mount(right, "/right")),
    )
    return run_pod(kube, namespace, one_shot).splitlines()


def digests(kube: KubeCluster, namespace: str, claim_names: Iterable[str], length: int) -> list[str]:
    """Return, for each block volume, the SHA-256 of its first ``length`` bytes and the count of later bytes that are
    not zero.
    """
    command = ("python3", "/tools/devices.py", "digest", "/dev/volume", str(length))
    pods = [
        OneShotPod(f"digest-{name}"[:60].rstrip("-."), command, (Mount(name, "/dev/volume", is_block=True),))
        for name in claim_names
    ]
    kube.apply(*(one_shot.manifest(kube, namespace) for one_shot in pods))
    return [finish_pod(kube, namespace, one_shot.name).strip() for one_shot in pods]
