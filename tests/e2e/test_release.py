"""The release itself is upgraded, removed and reinstalled. Last in order, because other tests need it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, uninstall
from tests.support.cluster.namespaces import HOME, Account, Tenant
from tests.support.cluster.runs import install_release
from tests.support.cluster.workloads import claim

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing, pytest.mark.last(1)]

SECRETS = (
    (RELEASE_NAMESPACE, "cinderblock-store-accounts"),
    (HOME, "cinderblock-embedded-store"),
    (HOME, "cinderblock-embedded-store-encryption"),
)


@pytest.fixture
def reinstalled(kube: KubeCluster, release: Account) -> Iterator[None]:
    """Reinstall the release after the test, whatever the test did to it."""
    yield
    install_release(kube)


def _secrets(kube: KubeCluster) -> list[object]:
    return [(kube.get("secret", name, namespace) or {}).get("data") for namespace, name in SECRETS]


@pytest.mark.usefixtures("reinstalled")
def test_upgrade_keeps_credentials_and_keys(kube: KubeCluster) -> None:
    before = _secrets(kube)
    assert all(before)
    install_release(kube, "podLabels.upgraded=yes")
    assert _secrets(kube) == before


@pytest.mark.usefixtures("reinstalled")
def test_deletions_work_without_the_release_and_a_reinstallation_continues(tenant: Tenant) -> None:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files", size="64Mi"))
    tenant.wait_until("bound volume", tenant.volumes)
    kube.apply(tenant.backup("kept", "files"))
    [kept] = tenant.ends("volumebackup/kept")
    kube.apply(tenant.backup("given-up", "files"))
    tenant.ends("volumebackup/given-up")
    keys = tenant.keys()

    uninstall(kube)
    tenant.kubectl("delete", "volumebackup", "given-up", "--timeout=30s")
    assert tenant.get("volumebackup", "kept")["status"]["phase"] == "available"
    install_release(kube)

    kube.apply(tenant.restore("back", "kept", name="restored"))
    tenant.ends("volumerestore/back")
    assert tenant.keys() == keys
    tenant.delete("volumebackup/kept")
    tenant.kept = {key for key in keys if kept["metadata"]["uid"] not in key}
    assert tenant.keys() == tenant.kept


@pytest.mark.usefixtures("reinstalled")
def test_namespace_with_backups_can_be_deleted_without_the_release(tenant: Tenant) -> None:
    kube = tenant.kube
    kube.apply(claim(kube, tenant.name, "files", size="64Mi"))
    tenant.wait_until("bound volume", tenant.volumes)
    kube.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    uninstall(kube)
    tenant.is_gone = True
    kube.kubectl("delete", "namespace", tenant.name, "--timeout=60s")
    install_release(kube)
    tenant.account.purge(kube, tenant.name)
