"""Volumes, and pods that write to them and look at them. The pods run our image, because it has Python."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster.cluster import Lab, LabError

TOOLS = "tools"
"""ConfigMap with the programs that run in pods, mounted at /tools."""
PROGRAMS = ("trees.py", "compare.py", "devices.py", "commits.py")

Object = dict[str, Any]


@dataclass(frozen=True)
class Mount:
    """A claim in a pod: mounted at a directory, or as a device."""

    claim: str
    path: str
    is_block: bool = False


@dataclass(frozen=True)
class Errand:
    """A pod that runs one program and ends."""

    name: str
    command: tuple[str, ...]
    mounts: tuple[Mount, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)

    def manifest(self, lab: Lab, namespace: str) -> Object:
        """The pod: root with a container's ordinary capabilities, so that it can make every kind of file."""
        volumes: list[Object] = [{"name": TOOLS, "configMap": {"name": TOOLS}}]
        container: Object = {
            "name": "main",
            "image": lab.image,
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


def claim(lab: Lab, namespace: str, name: str, **options: Any) -> Object:
    """A PersistentVolumeClaim. Options: size, block, storage_class."""
    spec: Object = {
        "accessModes": ["ReadWriteOnce"],
        "volumeMode": "Block" if options.get("block") else "Filesystem",
        "resources": {"requests": {"storage": options.get("size", "1Gi")}},
    }
    storage_class = options.get("storage_class", lab.storage_class)
    if storage_class:
        spec["storageClassName"] = storage_class
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def put_tools(lab: Lab, namespace: str) -> None:
    """Make the ConfigMap with the programs, and wait until pods are admitted to the namespace."""
    here = Path(__file__).parents[1] / "mover"
    files = [f"--from-file={here / name}" for name in PROGRAMS]
    text = lab.kubectl("create", "configmap", TOOLS, "-n", namespace, *files, "--dry-run=client", "-o", "yaml")
    lab.kubectl("apply", "--server-side", "-f", "-", stdin=text)
    lab.wait_until(
        f"default ServiceAccount in {namespace}", lambda: lab.get("serviceaccount", "default", namespace), timeout=30
    )


def run_errand(lab: Lab, namespace: str, errand: Errand, *, timeout: float = 90) -> str:
    """Run a pod to its end and remove it; returns what it printed. Raises LabError if it failed."""
    lab.apply(errand.manifest(lab, namespace))
    return finish_errand(lab, namespace, errand.name, timeout=timeout)


def finish_errand(lab: Lab, namespace: str, name: str, *, timeout: float = 90) -> str:
    """Wait until a pod has ended and remove it; returns what it printed. Raises LabError if it failed."""

    def phase() -> str | None:
        pod = lab.get("pod", name, namespace)
        found = pod["status"].get("phase", "") if pod else ""
        return found if found in ("Succeeded", "Failed") else None

    ended = lab.wait_until(f"end of pod {name}", phase, timeout=timeout, details=lambda: lab.diagnose(namespace))
    printed = lab.kubectl("logs", "-n", namespace, name)
    lab.kubectl("delete", "pod", name, "-n", namespace, "--timeout=60s")
    if ended == "Failed":
        raise LabError(f"pod {name} failed:\n{printed}")
    return printed


def compare_trees(lab: Lab, namespace: str, left: str, right: str) -> list[str]:
    """Differences between the trees in two claims: content, owners, modes, times, attributes, links."""
    program = (
        "import subprocess, sys; done = subprocess.run([sys.executable, '/tools/compare.py', '/left', '/right'],"
        " stdout=subprocess.PIPE, text=True); print(done.stdout, end=''); sys.exit(done.returncode not in (0, 1))"
    )
    errand = Errand(
        f"compare-{left}-{right}"[:60].rstrip("-."),
        ("python3", "-c", program),
        (Mount(left, "/left"), Mount(right, "/right")),
    )
    return run_errand(lab, namespace, errand).splitlines()


def digests(lab: Lab, namespace: str, claim_names: Iterable[str], length: int) -> list[str]:
    """Of block volumes, SHA-256 of the first ``length`` bytes, and how many bytes after them are not zero."""
    command = ("python3", "/tools/devices.py", "digest", "/dev/volume", str(length))
    errands = [
        Errand(f"digest-{name}"[:60].rstrip("-."), command, (Mount(name, "/dev/volume", is_block=True),))
        for name in claim_names
    ]
    lab.apply(*(errand.manifest(lab, namespace) for errand in errands))
    return [finish_errand(lab, namespace, errand.name).strip() for errand in errands]
