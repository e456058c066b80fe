"""Everything here runs on a real cluster with the chart installed: `make e2e`, or KUBECONFIG of a cluster of your own.

Nothing is faked. Each test has a namespace of its own, or shares one with the tests of its file that only read from it.
When a test ends, nothing of what the operator made may be left, and no secret may have been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support import tidiness
from tests.support.lab import RELEASE_NAMESPACE, Lab, alone, install, uninstall
from tests.support.tenants import HOME, Account, Tenant
from tests.support.tidiness import Graveyard
from tests.support.witness import Witness

TenantMaker = Callable[..., Tenant]


@pytest.fixture(scope="session")
def lab() -> Lab:
    """The cluster of KUBECONFIG."""
    return Lab.from_environment()


@pytest.fixture(scope="session")
def release(lab: Lab) -> Iterator[Account]:
    """The chart, installed once, and its embedded store's account. Two runs on one cluster wait for each other."""
    with alone():
        install(lab, [HOME])
        yield Account.of(lab)
        uninstall(lab)
        lab.kubectl("delete", "namespace", HOME, RELEASE_NAMESPACE, "--timeout=120s", "--ignore-not-found")


@pytest.fixture(scope="session")
def witness(lab: Lab) -> Iterator[Witness]:
    """Sees every mover."""
    with Witness(lab) as watching:
        yield watching


@pytest.fixture(scope="session")
def graveyard(lab: Lab, release: Account) -> Iterator[Graveyard]:
    """Where tenants go; checked when all tests have run."""
    buried = Graveyard(lab)
    yield buried
    buried.check()


def _tenants(
    request: pytest.FixtureRequest, lab: Lab, release: Account, witness: Witness, graveyard: Graveyard
) -> Iterator[TenantMaker]:
    made: list[Tenant] = []

    def make(**options: Any) -> Tenant:
        made.append(Tenant.make(lab, witness, release, request.node.name.rpartition("/")[2], **options))
        return made[-1]

    yield make
    try:
        for tenant in made:
            tidiness.check(tenant)
    finally:
        for tenant in made:
            graveyard.bury(tenant)


make_tenant = pytest.fixture(_tenants, name="make_tenant")
make_shared_tenant = pytest.fixture(_tenants, scope="module", name="make_shared_tenant")


@pytest.fixture
def tenant(make_tenant: TenantMaker) -> Tenant:
    """A namespace with a default store."""
    return make_tenant()
