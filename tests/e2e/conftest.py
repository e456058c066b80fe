"""Everything here runs on a real cluster with the chart installed: `make e2e`, or KUBECONFIG of a cluster of your own.

Nothing is faked. Each test has a namespace of its own, or shares one with the tests of its file that only read from it.
When a test ends, nothing of what the operator made may be left, and no secret may have been seen: not in any version of
our objects, in Events, in movers and their Jobs, or in what movers and the operator have logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.cluster import cluster
from tests.support.cluster import leak_check
from tests.support.cluster.audit import AuditLog
from tests.support.cluster.cluster import Lab, alone, install
from tests.support.cluster.leak_check import Graveyard
from tests.support.cluster.namespaces import HOME, Account, Tenant
from tests.support.cluster.recorder import Witness
from tests.support.cluster.runs import Run, remove_release
from tests.support.cluster.secret_scan import Oracle

TenantMaker = Callable[..., Tenant]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Move tests with the marker ``last`` behind all others, in the order of its number."""
    marked = {item: item.get_closest_marker("last") for item in items}
    items.sort(key=lambda item: marker.args[0] if (marker := marked[item]) else 0)


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The cluster of KUBECONFIG."""
    return Lab.from_environment()


@pytest.fixture(scope="session")
def audit(lab: Lab) -> AuditLog | None:
    """What the chart's accounts ask the API server from the first test on; None: nobody writes that down."""
    if not lab.is_own:
        return None
    path, run = cluster.running().audit_log, Run.joined()
    return AuditLog(path, run.audit_start(path) if run else None)


@pytest.fixture(scope="session")
def release(lab: Lab, audit: AuditLog | None) -> Iterator[Account]:
    """The chart, installed once, and its embedded store's account. Two runs on one cluster wait for each other."""
    del audit  # The operator asks for some things only when it starts: the log must be open by then.
    run = Run.joined()
    if run is not None:
        run.install(lab)
        yield Account.of(lab)
        return
    with alone():
        install(lab, [HOME])
        yield Account.of(lab)
        remove_release(lab)


@pytest.fixture(scope="session")
def witness(lab: Lab) -> Iterator[Witness]:
    """Sees every mover."""
    with Witness(lab) as watching:
        yield watching


@pytest.fixture(scope="session")
def oracle(lab: Lab, witness: Witness) -> Oracle:
    """Looks for secrets in all that is seen and said."""
    return Oracle(lab, witness)


@pytest.fixture(autouse=True)
def _no_secret_is_shown(oracle: Oracle) -> Iterator[None]:
    """In every test, whether or not it has anything to do with secrets."""
    yield
    oracle.learn()
    assert not oracle.snapshot_claim()


@pytest.fixture(scope="session")
def graveyard(lab: Lab, release: Account) -> Iterator[Graveyard]:
    """Where tenants go; checked when all tests have run."""
    buried = Graveyard(lab)
    yield buried
    buried.check()


def _tenants(
    request: pytest.FixtureRequest, lab: Lab, release: Account, oracle: Oracle, graveyard: Graveyard
) -> Iterator[TenantMaker]:
    made: list[Tenant] = []

    def make(**options: Any) -> Tenant:
        made.append(Tenant.make(lab, oracle.witness, release, request.node.name.rpartition("/")[2], **options))
        return made[-1]

    yield make
    oracle.learn()
    try:
        for tenant in made:
            leak_check.check(tenant)
    finally:
        for tenant in made:
            graveyard.bury(tenant)


make_tenant = pytest.fixture(_tenants, name="make_tenant")
make_shared_tenant = pytest.fixture(_tenants, scope="module", name="make_shared_tenant")


@pytest.fixture
def tenant(make_tenant: TenantMaker) -> Tenant:
    """A namespace with a default store."""
    return make_tenant()
