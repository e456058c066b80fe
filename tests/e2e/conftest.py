"""Fixtures for tests on a real cluster with the chart installed: `make e2e`, or KUBECONFIG of your own cluster.

Nothing is faked. Each test has its own namespace, or shares one with tests of its file that only read from it. When a
test ends, no child of the operator may be left. No secret may have been exposed in any version of our objects, in an
Event, a mover or a Job, or in a log of movers or the operator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster import cluster
from tests.support.cluster import leak_check
from tests.support.cluster.audit import AuditLog
from tests.support.cluster.cluster import KubeCluster, alone
from tests.support.cluster.leak_check import DeletedNamespaces
from tests.support.cluster.namespaces import Account, Tenant
from tests.support.cluster.recorder import Recorder
from tests.support.cluster.runs import Run, install_release, remove_release
from tests.support.cluster.secret_scan import SecretScanner

TenantMaker = Callable[..., Tenant]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move tests with the marker ``last`` behind all others, in the order of its number."""
    marked = {item: item.get_closest_marker("last") for item in items}
    items.sort(key=lambda item: marker.args[0] if (marker := marked[item]) else 0)


@pytest.fixture(scope="session")
def kube() -> KubeCluster:
    """Return the cluster of KUBECONFIG."""
    return KubeCluster.from_environment()


@pytest.fixture(scope="session")
def audit(kube: KubeCluster) -> AuditLog | None:
    """Return the API requests of the chart's accounts from the first test on, or None without an audit log."""
    if not kube.is_own:
        return None
    path, run = cluster.running().audit_log, Run.joined()
    return AuditLog(path, run.audit_start(path) if run else None)


@pytest.fixture(scope="session")
def release(kube: KubeCluster, audit: AuditLog | None) -> Iterator[Account]:
    """Install the chart once, and return the account of its embedded store.

    Two runs on one cluster wait for each other.
    """
    del audit  # The operator asks for some things only when it starts: the log must be open by then.
    run = Run.joined()
    if run is not None:
        run.install(kube)
        yield Account.of(kube)
        return
    with alone():
        install_release(kube)
        yield Account.of(kube)
        remove_release(kube)


@pytest.fixture(scope="session")
def recorder(kube: KubeCluster) -> Iterator[Recorder]:
    """Record every mover."""
    with Recorder(kube) as watching:
        yield watching


@pytest.fixture(scope="session")
def scanner(kube: KubeCluster, recorder: Recorder) -> SecretScanner:
    """Search everything that the recorder sees for secrets."""
    return SecretScanner(kube, recorder)


@pytest.fixture(autouse=True)
def _no_secret_is_shown(scanner: SecretScanner) -> Iterator[None]:
    """Check after every test that no secret was exposed."""
    yield
    scanner.learn()
    assert not scanner.leaks()


@pytest.fixture(scope="session")
def deleted_namespaces(kube: KubeCluster, release: Account) -> Iterator[DeletedNamespaces]:
    """Collect the namespaces of ended tests, and check after all tests that nothing of them is left."""
    buried = DeletedNamespaces(kube)
    yield buried
    buried.check()


def _tenants(
    request: pytest.FixtureRequest,
    kube: KubeCluster,
    release: Account,
    scanner: SecretScanner,
    deleted_namespaces: DeletedNamespaces,
) -> Iterator[TenantMaker]:
    made: list[Tenant] = []

    def make(**options: Any) -> Tenant:
        made.append(Tenant.make(kube, scanner.recorder, release, request.node.name.rpartition("/")[2], **options))
        return made[-1]

    yield make
    scanner.learn()
    try:
        for tenant in made:
            leak_check.check(tenant)
    finally:
        for tenant in made:
            deleted_namespaces.delete(tenant)


make_tenant = pytest.fixture(_tenants, name="make_tenant")
make_shared_tenant = pytest.fixture(_tenants, scope="module", name="make_shared_tenant")


@pytest.fixture
def tenant(make_tenant: TenantMaker) -> Tenant:
    """Return a namespace with a default store."""
    return make_tenant()
