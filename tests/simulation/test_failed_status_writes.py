"""A failed status write is not reported as a failed action."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cinderblock.errors import AccessDenied, CinderblockError, InvalidInput, KubeUnavailable
from cinderblock.kube.responses import RequestInfo
from tests.support.simulation.cluster import NAMESPACE
from tests.support.simulation.simulation import Simulation
from tests.support.variations import pairs_in_turn

ERRORS = [KubeUnavailable("the API server does not answer"), AccessDenied("not now"), InvalidInput("no such field")]


class FailingWrites:
    """Fails the n-th write of the operator to the API server, before or after it happens."""

    def __init__(self, simulation: Simulation, at: int, error: CinderblockError, *, done: bool) -> None:
        self._at, self._error, self._done = at, error, done
        self.failed: RequestInfo | None = None
        faults = simulation.faults
        self._before, self._after, self._count = faults.before, faults.after, 0
        faults.before, faults.after = self.before, self.after  # type: ignore[method-assign]

    async def before(self, call: RequestInfo) -> None:
        await self._before(call)
        if call.is_write:
            self._fail(call, done=False)

    async def after(self, call: RequestInfo, status: int) -> None:
        await self._after(call, status)
        if call.is_write:
            self._fail(call, done=True)
            self._count += 1

    def _fail(self, call: RequestInfo, *, done: bool) -> None:
        if self._count == self._at and done == self._done and self.failed is None:
            self.failed = call
            raise self._error


def a_backup(simulation: Simulation) -> None:
    simulation.claim("data", "first")
    simulation.backup("full", "data")
    simulation.settle()


def end_namespace(simulation: Simulation) -> None:
    namespace = simulation.get("Namespace", NAMESPACE)
    simulation.objects.update(namespace, metadata=namespace["metadata"] | {"finalizers": ["kubernetes"]})
    simulation.objects.delete(namespace)


def every_write(run: Callable[[int], RequestInfo | None]) -> list[RequestInfo]:
    """Fail one write after the other until no write remains. Return the failed writes."""
    failed = []
    for at in range(30):
        call = run(at)
        if call is None:
            return failed
        failed.append(call)
    raise AssertionError("more writes than expected")


@pytest.mark.parametrize("is_ending", [False, True], ids=["an active namespace", "a terminating namespace"])
@pytest.mark.parametrize("done", [False, True], ids=["not done", "done"])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.reason)
def test_removed_data_is_never_reported_as_left(
    error: CinderblockError, caplog: pytest.LogCaptureFixture, *, done: bool, is_ending: bool
) -> None:
    def run(at: int) -> RequestInfo | None:
        with Simulation() as simulation:
            a_backup(simulation)
            if is_ending:
                end_namespace(simulation)
            simulation.delete("VolumeBackup", "full")
            fault = FailingWrites(simulation, at, error, done=done)
            simulation.settle()
            assert (simulation.phase("VolumeBackup", "full"), simulation.stored()) == ("gone", []), simulation.story()
            assert "DataLeft" not in simulation.reasons, f"write {at}: {simulation.story()}"
            # No Event can be created in a terminating namespace, so the log is checked as well.
            assert "the data stays in the store" not in caplog.text
            assert error.reason not in simulation.reasons, f"write {at}: {simulation.story()}"
            return fault.failed

    failed = every_write(run)
    assert any(call.subresource == "status" for call in failed), failed


@pytest.mark.parametrize(("kind", "done"), pairs_in_turn(["VolumeBackup", "VolumeRestore"], [False, True]))
def test_rejected_status_write_fails_no_operation(kind: str, *, done: bool) -> None:
    """The Job of an operation was created, but its status could not be written. No condition reports a rejected Job."""

    def run(at: int) -> RequestInfo | None:
        with Simulation() as simulation:
            if kind == "VolumeBackup":
                simulation.claim("data", "first")
                simulation.backup("full", "data")
            else:
                a_backup(simulation)
                simulation.restore("back", "full", name="new")
            fault = FailingWrites(simulation, at, AccessDenied("not now"), done=done)
            simulation.settle()
            name = "full" if kind == "VolumeBackup" else "back"
            if fault.failed is not None and fault.failed.subresource == "status":
                assert simulation.phase(kind, name) == "available", simulation.story()
                assert "AccessDenied" not in simulation.reasons, simulation.story()
            return fault.failed

    failed = every_write(run)
    assert any(call.subresource == "status" for call in failed), failed
