"""The release itself: upgraded, removed and installed again. Last in order, because others need it meanwhile."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster.cluster import RELEASE_NAMESPACE, Lab, install, uninstall
from tests.support.cluster.namespaces import HOME, Account, Tenant
from tests.support.cluster.workloads import claim

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing, pytest.mark.last(1)]

SECRETS = (
    (RELEASE_NAMESPACE, "cinderblock-store-accounts"),
    (HOME, "cinderblock-embedded-store"),
    (HOME, "cinderblock-embedded-store-encryption"),
)


@pytest.fixture
def reinstalled(lab: Lab, release: Account) -> Iterator[None]:
    """Whatever a test does to the release, the next one finds it installed."""
    yield
    install(lab, [HOME])


def _secrets(lab: Lab) -> list[object]:
    return [(lab.get("secret", name, namespace) or {}).get("data") for namespace, name in SECRETS]


@pytest.mark.usefixtures("reinstalled")
def test_upgrade_keeps_credentials_and_keys(lab: Lab) -> None:
    before = _secrets(lab)
    assert all(before)
    install(lab, [HOME], "podLabels.upgraded=yes")
    assert _secrets(lab) == before


@pytest.mark.usefixtures("reinstalled")
def test_without_the_release_nothing_hangs_and_with_it_again_everything_goes_on(tenant: Tenant) -> None:
    lab = tenant.lab
    lab.apply(claim(lab, tenant.name, "files", size="64Mi"))
    tenant.wait_until("bound volume", tenant.volumes)
    lab.apply(tenant.backup("kept", "files"))
    [kept] = tenant.ends("volumebackup/kept")
    lab.apply(tenant.backup("given-up", "files"))
    tenant.ends("volumebackup/given-up")
    keys = tenant.keys()

    uninstall(lab)
    tenant.kubectl("delete", "volumebackup", "given-up", "--timeout=30s")
    assert tenant.get("volumebackup", "kept")["status"]["phase"] == "available"
    install(lab, [HOME])

    lab.apply(tenant.restore("back", "kept", name="restored"))
    tenant.ends("volumerestore/back")
    assert tenant.keys() == keys
    tenant.delete("volumebackup/kept")
    tenant.kept = {key for key in keys if kept["metadata"]["uid"] not in key}
    assert tenant.keys() == tenant.kept


@pytest.mark.usefixtures("reinstalled")
def test_without_the_release_a_namespace_with_backups_goes(tenant: Tenant) -> None:
    lab = tenant.lab
    lab.apply(claim(lab, tenant.name, "files", size="64Mi"))
    tenant.wait_until("bound volume", tenant.volumes)
    lab.apply(tenant.backup("full", "files"))
    tenant.ends("volumebackup/full")
    uninstall(lab)
    tenant.is_gone = True
    lab.kubectl("delete", "namespace", tenant.name, "--timeout=60s")
    install(lab, [HOME])
    tenant.account.purge(lab, tenant.name)
