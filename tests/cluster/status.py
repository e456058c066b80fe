"""Print the table of `status`, and decide whether everything is as it should be."""

import functools
from collections.abc import Callable

from tests.cluster import storage
from tests.cluster.components import Components
from tests.cluster.daemons import Daemons
from tests.cluster.errors import ClusterError
from tests.cluster.health import Health
from tests.cluster.network import is_up
from tests.cluster.settings import Settings


def show(settings: Settings) -> bool:
    """Print the state of every part; return whether all of them are well."""
    healthy = [_show(name, *facts) for name, facts in _processes(settings).items()]
    healthy += [_show(name, _is(check), "") for name, check in _checks(settings).items()]
    health = Health(settings, Components(settings))
    print(f"\nversions    {health.versions() if health.is_api_ready() else 'unknown: no API server'}")
    print(f"kubeconfig  {settings.kubeconfig}")
    print(f"pods        {settings.pods}, this machine is {settings.address}")
    print(f"services    {settings.services}")
    return all(healthy)


def _processes(settings: Settings) -> dict[str, tuple[bool, str]]:
    found = Daemons(settings.directory, settings.environment()).all()
    return {name: (process.is_alive, f"pid {process.pid}") for name, process in found.items()}


def _checks(settings: Settings) -> dict[str, Callable[[], bool]]:
    health = Health(settings, Components(settings))
    checks: dict[str, Callable[[], bool]] = {
        "everything started": settings.complete.exists,
        f"bridge {settings.name}": lambda: is_up(settings),
        "API server ready": health.is_api_ready,
        "node ready": health.is_node_ready,
        "services proxied": health.is_proxy_healthy,
    }
    for driver in storage.DRIVERS:
        checks[f"{driver.name} registered"] = functools.partial(health.is_registered, driver.name)
    return checks


def _is(check: Callable[[], bool]) -> bool:
    try:
        return check()
    except ClusterError:
        return False


def _show(name: str, is_well: bool, detail: str) -> bool:
    print(f"{'ok' if is_well else 'DEAD' if detail else 'NO':5} {name:40} {detail}")
    return is_well
