"""Kubernetes' own controllers for claims and volumes, on an API server without nodes."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import toolchain
from tests.cluster.programs import Program
from tests.cluster.scopes import scope

_CONTROLLERS = (
    "persistentvolume-binder-controller",
    "persistentvolumeclaim-protection-controller",
    "garbage-collector-controller",
)


@contextlib.contextmanager
def controlled(kubeconfig: Path, *, resync: str) -> Iterator[None]:
    """Bind claims, release volumes and collect garbage until the block ends.

    `resync` is the interval at which the binder checks all objects, such as `10m`; Kubernetes' default is 15 s. Until
    then, it reacts only to events.
    """
    binary = toolchain.ensure(["kube-controller-manager"])["kube-controller-manager"]
    with scope("volumes-") as programs:
        command = (
            str(binary),
            f"--kubeconfig={kubeconfig}",
            f"--controllers={','.join(_CONTROLLERS)}",
            f"--pvclaimbinder-sync-period={resync}",
            f"--flex-volume-plugin-dir={programs.directory / 'flexvolume'}",
            "--leader-elect=false",
            "--secure-port=0",
            "--kube-api-qps=200",
            "--kube-api-burst=400",
        )
        programs.start(Program("kube-controller-manager", command))
        yield
