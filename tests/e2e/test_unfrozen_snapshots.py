"""Volumes in use with crash-consistent snapshots, like those of disks: no incremental backup loses a commit.

The snapshot of the first backup has the new timestamps of files and their old pages, which the kernel had not written
yet; databases make up for that from their logs. The next one has the pages, and no timestamp has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.storage import UNFROZEN
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.workloads import Mount, OneShotPod, claim, finish_pod
from tests.support.mover.commits import LAYOUTS
from tests.support.mover.unfrozen import until_seen

pytestmark = pytest.mark.e2e

SIZE = str(96 << 20)
FILES = {"table", *(name for name, _ in LAYOUTS)}
STORES: dict[str, dict[str, Any]] = {"default": {}, "shortest": {"dirtyWindow": {"default": "2m"}}}
"""Each has a volume of its own, and the StorageClass of one and the VolumeSnapshotClass of the other do not freeze."""


@pytest.fixture
def busy(tenant: Tenant) -> Iterator[Tenant]:
    """Return a tenant whose pod writes to the volumes `default` and `shortest` on command."""
    kube = tenant.kube
    if not kube.is_own:
        pytest.skip("needs the classes of our own cluster that do not freeze")
    kube.apply(
        tenant.store("shortest", volumeSnapshotClassName=UNFROZEN, **STORES["shortest"]),
        claim(kube, tenant.name, "default", size=SIZE, storage_class=UNFROZEN),
        claim(kube, tenant.name, "shortest", size=SIZE),
        _writer().manifest(kube, tenant.name),
    )
    tenant.wait_until("writer at work", lambda: "ready" in tenant.kubectl("logs", "writer", check=False))
    yield tenant
    tenant.kubectl("delete", "pod", "writer", "--timeout=60s")


def test_incrementals_of_databases_in_use_hold_every_commit(busy: Tenant) -> None:
    numbers = iter(range(1, 100))

    def is_seen() -> bool:
        number = next(numbers)
        _order(busy, "dirty", number)
        _back_up(busy, f"full-{number}", incremental=False)
        _order(busy, "settle", number)
        for again in ("first", "second"):
            _back_up(busy, f"{again}-{number}", incremental=True)
        backups = [f"{what}-{number}" for what in ("full", "first", "second")]
        _restore(busy, *backups)
        lacking = {name: set(text.split()) for name, text in _judge(busy, "lacking", backups[0], number).items()}
        if lacking != dict.fromkeys(STORES, FILES):
            return False
        assert all(_reread(busy, f"{store}-{backups[1]}") > 0 for store in STORES)
        for backup in backups[1:]:
            assert _judge(busy, "missing", backup, number) == dict.fromkeys(STORES, "")
        return True

    until_seen(is_seen)


def _writer() -> OneShotPod:
    mounts = tuple(Mount(name, f"/{name}") for name in STORES)
    return OneShotPod(
        "writer", ("python3", "-u", "/tools/commits.py", "serve", *(mount.path for mount in mounts)), mounts
    )


def _order(tenant: Tenant, verb: str, number: int) -> None:
    tenant.kubectl("exec", "writer", "--", "python3", "/tools/commits.py", "order", verb, str(number))


def _back_up(tenant: Tenant, name: str, *, incremental: bool) -> None:
    """Back up all volumes at once, each to its store."""
    wanted = [
        tenant.backup(f"{store}-{name}", store, storeName=store, incremental=incremental, force=True)
        for store in STORES
    ]
    tenant.kube.apply(*wanted)
    tenant.ends(*(f"volumebackup/{store}-{name}" for store in STORES))


def _reread(tenant: Tenant, name: str) -> int:
    """Return how many files a backup has read again because of the dirty window."""
    return int(tenant.get("volumebackup", name)["status"]["rereadFiles"])


def _restore(tenant: Tenant, *names: str) -> None:
    """Restore backups of all volumes at once, each to a volume of its own name."""
    wanted = [f"{store}-{name}" for store in STORES for name in names]
    tenant.kube.apply(*(tenant.restore(name, name, name=f"copy-of-{name}") for name in wanted))
    tenant.ends(*(f"volumerestore/{name}" for name in wanted))


def _judge(tenant: Tenant, verb: str, name: str, number: int) -> dict[str, str]:
    """Return what is lacking in, or missing from, what was restored, by the store."""
    pods = {
        store: OneShotPod(
            f"{verb}-{store}-{name}",
            ("python3", "/tools/commits.py", verb, "/copy", str(number)),
            (Mount(f"copy-of-{store}-{name}", "/copy"),),
        )
        for store in STORES
    }
    tenant.kube.apply(*(one_shot.manifest(tenant.kube, tenant.name) for one_shot in pods.values()))
    return {store: finish_pod(tenant.kube, tenant.name, one_shot.name).strip() for store, one_shot in pods.items()}
