"""A real cluster for tests: kubectl, helm and our image, on the cluster of KUBECONFIG.

On the test cluster of this repository, the images are built and loaded. On any other, the environment names them (see
"Test on your own cluster" in CONTRIBUTING.md).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.cluster import cluster, containers, image
from tests.cluster.toolchain import tool

ROOT = Path(__file__).parents[3]
OWN_IMAGE = "localhost/cinderblock:test"
OWN_S3_IMAGE = "localhost/versitygw:test"
FOREIGN_S3_IMAGE = "docker.io/versity/versitygw:v1.8.0"
RELEASE = "cinderblock"
RELEASE_NAMESPACE = "cinderblock-system"

Object = dict[str, Any]


class KubeClusterError(Exception):
    """A condition was not met in time, or a command failed. The message contains the last output."""


@dataclass(frozen=True)
class KubeCluster:
    """A cluster, and the images and classes to use on it.

    Attributes:
        is_own: whether it is this repository's test cluster, with its second CSI driver and its loop devices.
        image: our image.
        s3_image: image of the embedded S3 server.
        storage_class: StorageClass of volumes; its driver makes snapshots.
        snapshot_class: VolumeSnapshotClass; None: the driver's default.
    """

    is_own: bool
    image: str
    s3_image: str
    storage_class: str
    snapshot_class: str | None

    @classmethod
    def from_environment(cls) -> KubeCluster:
        """Return the cluster of KUBECONFIG.

        For the repository's own cluster, build and load the images of this tree.
        """
        if not os.environ.get("KUBECONFIG"):
            raise KubeClusterError(
                "KUBECONFIG is not set: run this through `make demo` or `make e2e`, which start a cluster"
            )
        given = os.environ.get("CINDERBLOCK_IMAGE")
        if given:
            return cls(
                is_own=False,
                image=given,
                s3_image=os.environ.get("CINDERBLOCK_S3_IMAGE", FOREIGN_S3_IMAGE),
                storage_class=os.environ.get("CINDERBLOCK_STORAGE_CLASS", ""),
                snapshot_class=os.environ.get("CINDERBLOCK_SNAPSHOT_CLASS"),
            )
        containers.load(cluster.running(), image.build())
        return cls(True, OWN_IMAGE, OWN_S3_IMAGE, "rawfile", None)

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True, timeout: float = 180) -> str:
        """Run kubectl, and return its output. Raises KubeClusterError with its message if it failed."""
        return run([str(tool("kubectl")), *arguments], stdin=stdin, check=check, timeout=timeout)

    def apply(self, *objects: Object) -> None:
        """Apply objects, as ``kubectl apply`` does."""
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(objects))

    def refused(self, *objects: Object) -> str:
        """Apply objects that the API server must reject, and return its message."""
        try:
            self.apply(*objects)
        except KubeClusterError as error:
            return str(error)
        raise KubeClusterError(
            f"{[item['metadata']['name'] for item in objects]} was accepted and should not have been"
        )

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Return one object, or None."""
        place = ["-n", namespace] if namespace else []
        text = self.kubectl("get", kind, name, *place, "-o", "json", "--ignore-not-found")
        found: Object | None = json.loads(text) if text.strip() else None
        return found

    def items(self, kind: str, namespace: str | None = None) -> list[Object]:
        """Return all objects of a kind, in a namespace or in all."""
        place = ["-n", namespace] if namespace else ["-A"]
        items: list[Object] = json.loads(self.kubectl("get", kind, *place, "-o", "json"))["items"]
        return items

    def wait_until(
        self, what: str, seen: Callable[[], Any], *, timeout: float = 90, details: Callable[[], str] | None = None
    ) -> Any:
        """Repeat ``seen`` until its result is true, and return that.

        Raises KubeClusterError, naming the condition, after the timeout.
        """
        deadline = time.monotonic() + timeout
        while not (value := seen()):
            if time.monotonic() > deadline:
                state = f"\n{details()}" if details else ""
                raise KubeClusterError(f"after {timeout:.0f} s there was still no: {what}{state}")
            time.sleep(0.2)
        return value

    def diagnose(self, namespace: str) -> str:
        """Return the state of a namespace for a person who investigates a failure: our objects, children, Events and
        logs.
        """
        kinds = "backupstores,volumebackups,volumerestores,backupverifications,jobs,pods,pvc"
        return "\n".join(
            (
                self.kubectl("get", kinds, "-n", namespace, "-o", "wide", check=False),
                self.kubectl(
                    "get",
                    "volumebackups,volumerestores,backupverifications",
                    "-n",
                    namespace,
                    "-o",
                    "yaml",
                    check=False,
                )[-6000:],
                self.kubectl("get", "events", "-n", namespace, check=False)[-4000:],
                self.kubectl(
                    "logs", "-n", namespace, "-l", "app.kubernetes.io/managed-by=cinderblock", "--tail=20", check=False
                ),
                self.kubectl("logs", "-n", RELEASE_NAMESPACE, f"deploy/{RELEASE}", "--tail=30", check=False)[-6000:],
            )
        )


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Prevent other processes on this machine from installing or uninstalling the release on the same cluster."""
    cluster_name = hashlib.sha256(os.environ.get("KUBECONFIG", "").encode()).hexdigest()[:12]
    with open(Path(tempfile.gettempdir()) / f"cinderblock-e2e-{cluster_name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(command: list[str], *, stdin: str | None = None, check: bool = True, timeout: float = 180) -> str:
    """Run a command, and return its standard output.

    Raises KubeClusterError with its message if it failed and ``check`` is set.
    """
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise KubeClusterError(f"{' '.join(command[:6])} ... had not ended after {timeout:.0f} s") from None
    if check and done.returncode:
        raise KubeClusterError(f"{' '.join(command[:8])}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def install(
    kube: KubeCluster, namespaces: Iterable[str], *more: str, chart: Path = ROOT / "charts" / "cinderblock"
) -> str:
    """Install or upgrade the chart with the embedded store for ``namespaces``; returns what helm printed.

    ``more`` are further values, ``chart`` is the chart of another release.
    """
    repository, _, tag = kube.image.rpartition(":")
    s3_repository, _, s3_tag = kube.s3_image.rpartition(":")
    settings = [
        f"image.repository={repository}",
        f"image.tag={tag}",
        "embeddedStore.enabled=true",
        "embeddedStore.createNamespaces=true",
        f"embeddedStore.image.repository={s3_repository}",
        f"embeddedStore.image.tag={s3_tag}",
        f"embeddedStore.namespaces={{{','.join(namespaces)}}}",
        f"embeddedStore.storage.storageClassName={kube.storage_class}",
        *more,
    ]
    options = [option for setting in settings for option in ("--set", setting)]
    place = ["--namespace", RELEASE_NAMESPACE, "--create-namespace", "--wait", "--timeout", "120s"]
    return run([str(tool("helm")), "upgrade", "--install", RELEASE, str(chart), *place, *options])


def uninstall(kube: KubeCluster) -> str:
    """Uninstall the chart, and return the output of helm."""
    return run([str(tool("helm")), "uninstall", RELEASE, "--namespace", RELEASE_NAMESPACE, "--timeout", "120s"])
