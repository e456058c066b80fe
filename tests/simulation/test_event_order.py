"""After any sequence of user actions, cluster events and faults, the requested state is reached and kept."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.internal.conjecture import providers
from hypothesis.internal.conjecture.providers import HypothesisProvider
from hypothesis.internal.constants_ast import Constants
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from cinderblock.api import labels
from cinderblock.api.labels import RESTORE_LABEL
from cinderblock.errors import AccessDenied, CinderblockError, StoreUnreachable
from tests.support.simulation.api import Object
from tests.support.simulation.simulation import Simulation, api_outage, is_restorable
from tests.support.store.faults import Crash

AT_REST = {"available", "error_restoring", "error"}
MANY = 12
"""Operations at once; more make the sequences longer, but find no more errors."""
OPERATIONS = ("VolumeBackup", "VolumeRestore")
SAME_SEQUENCES = settings(derandomize=True, stateful_step_count=30)
"""The same sequences in every run, so that only changes of the code cause failures."""
SEQUENCES = (25, pytest.param(600, marks=[pytest.mark.long, pytest.mark.timeout(1800)]))
"""Sequences that are tried. Each takes 0.4 s."""
CHILDREN = ("Job", "PersistentVolumeClaim", "VolumeSnapshot")


class AnyOrder(RuleBasedStateMachine):
    """A volume, its backups and restores, and every event that may interfere with them."""

    def __init__(self) -> None:
        super().__init__()
        self.simulation = Simulation()
        self.simulation.claim("data", "version 0")
        self.count = 0

    @initialize(backups=st.sampled_from([0, 1, 1, 2]), restore=st.sampled_from([None, "new-0", "data"]))
    def begin_with(self, backups: int, restore: str | None) -> None:
        for number in range(backups):
            self.simulation.backup(f"stored-{number}", "data", incremental=number > 0)
        self.simulation.settle()
        if backups and restore:
            self.simulation.restore("early", "stored-0", **{"volumeId" if restore == "data" else "name": restore})

    # Users

    def _new_name(self, letter: str) -> str:
        self.count += 1
        return f"{letter}{self.count}"

    @precondition(lambda self: len(self._operations()) < MANY)
    @rule(incremental=st.booleans(), force=st.booleans(), retain=st.booleans())
    def ask_for_a_backup(self, incremental: bool, force: bool, retain: bool) -> None:
        policy = "Retain" if retain else "Delete"
        spec = {"incremental": incremental, "force": force, "deletionPolicy": policy}
        self.simulation.backup(self._new_name("backup-"), "data", **spec)

    @rule()
    def notice_what_is_new(self) -> None:
        self.simulation.acknowledge()

    @precondition(lambda self: self.simulation.objects.all("VolumeBackup") and len(self._operations()) < MANY)
    @rule(data=st.data(), into=st.sampled_from(["new", "late", "same", "unnamed", "existing"]))
    def ask_for_a_restore(self, data: st.DataObject, into: str) -> None:
        backup = self._pick(data, self.simulation.objects.all("VolumeBackup"))
        spec: dict[str, dict[str, Any]] = {
            "new": {"name": self._new_name("new-")},
            "late": {"name": self._new_name("late-"), "storageClassName": "late"},
            "same": {"name": "wanted-by-many"},
            "unnamed": {},
            "existing": {"volumeId": "data"},
        }
        self.simulation.restore(self._new_name("restore-"), backup["metadata"]["name"], **spec[into])

    @precondition(lambda self: self._operations())
    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        self.simulation.objects.delete(self._pick(data, self._operations()))

    @precondition(lambda self: self._operations())
    @rule(data=st.data())
    def lose_a_status(self, data: st.DataObject) -> None:
        self.simulation.objects.update(self._pick(data, self._operations()), status=None)

    @precondition(lambda self: self._children())
    @rule(data=st.data())
    def delete_a_child(self, data: st.DataObject) -> None:
        self.simulation.objects.delete(self._pick(data, self._children()))

    @rule()
    def use_the_volume(self) -> None:
        if self.simulation.exists("Pod", "web"):
            self.simulation.delete("Pod", "web")
        else:
            self.simulation.pod("web", "data")

    @rule()
    def write_to_the_volume(self) -> None:
        self.count += 1
        self.simulation.write("data", f"version {self.count}")

    # The cluster and the operator

    @rule(data=st.data(), times=st.integers(1, 6))
    def let_the_operator_work(self, data: st.DataObject, times: int) -> None:
        for _ in range(times):
            due = self.simulation.due()
            if due:
                self.simulation.reconcile(self._pick(data, due))

    @precondition(lambda self: self.simulation.cluster.moves())
    @rule(data=st.data())
    def let_the_cluster_work(self, data: st.DataObject) -> None:
        self.simulation.move(self._pick(data, self.simulation.cluster.moves()))

    @rule(times=st.integers(1, 25))
    def go_on(self, times: int) -> None:
        for _ in range(times):
            self.simulation.step()

    @rule(seconds=st.sampled_from([1, 30, 600, 7200]))
    def pass_time(self, seconds: int) -> None:
        self.simulation.advance(seconds)

    @rule()
    def resync(self) -> None:
        self.simulation.check_steady_objects()

    @rule()
    def start_the_operator_anew(self) -> None:
        self.simulation.restart()

    # Faults

    @rule(error=st.sampled_from([None, StoreUnreachable("no answer"), AccessDenied("the key is refused")]))
    def change_the_store(self, error: CinderblockError | None) -> None:
        self.simulation.store.error = error

    @rule(at=st.integers(0, 8), done=st.booleans(), crash=st.booleans())
    def plan_a_fault(self, at: int, done: bool, crash: bool) -> None:
        self.simulation.faults.plan(at, Crash("scripted") if crash else api_outage(), done=done)

    # The end

    def teardown(self) -> None:
        simulation = self.simulation
        with simulation:
            simulation.store.error = simulation.faults.at = None
            if simulation.exists("Pod", "web"):
                simulation.delete("Pod", "web")
            simulation.settle()
            self._check_operations()
            self._check_children()
            self._check_volumes()
            self._check_store()

    def _check_operations(self) -> None:
        for item in self._operations():
            name, status = item["metadata"]["name"], item.get("status", {})
            story = f"{name}: {status}\n{self.simulation.story()}"
            if item["kind"] == "VolumeRestore":
                assert status["phase"] in AT_REST, story
                assert "deletionTimestamp" not in item["metadata"], story
                assert not item["metadata"].get("finalizers"), story
            elif "deletionTimestamp" in item["metadata"]:
                assert status["phase"] == "deleting", story
                assert self._needed(item), story
            else:
                assert status["phase"] in AT_REST, story
                whole = is_restorable(self.simulation, item["metadata"]["uid"])
                assert whole or status["phase"] == "error", story

    def _needed(self, parent: Object) -> bool:
        uid = parent["metadata"]["uid"]
        children = [item["status"].get("parentId") == uid for item in self.simulation.objects.all("VolumeBackup")]
        return any(children)

    def _check_children(self) -> None:
        pods = [pod for pod in self.simulation.objects.all("Pod") if pod["metadata"].get("labels")]
        assert self._children() == pods == [], self.simulation.story()

    def _check_volumes(self) -> None:
        for volume in self.simulation.objects.all("PersistentVolume"):
            story = f"{volume}\n{self.simulation.story()}"
            assert volume["status"]["phase"] == "Bound", story
            assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Delete", story
            assert RESTORE_LABEL not in volume["metadata"].get("labels", {}), story
        for claim in self.simulation.objects.all("PersistentVolumeClaim"):
            name = claim["metadata"]["name"]
            assert name == "data" or self.simulation.content(name).startswith("version"), self.simulation.story()

    def _check_store(self) -> None:
        """Check that stored data belongs to a backup, or was retained."""
        retained = [event["reason"] for event in self.simulation.objects.all("Event")]
        left = "Retained" in retained or "DataLeft" in retained
        for key in self.simulation.stored():
            part = key.split("/")[2].removesuffix(".manifest")
            assert left or self.simulation.objects.by_uid(part), f"{key}\n{self.simulation.story()}"

    # Choice of objects

    def _operations(self) -> list[Object]:
        return [item for kind in OPERATIONS for item in self.simulation.objects.all(kind)]

    def _children(self) -> list[Object]:
        found = [item for kind in CHILDREN for item in self.simulation.objects.all(kind)]
        return [item for item in found if labels.MANAGED_BY_LABEL in item["metadata"].get("labels", {})]

    def _pick(self, data: st.DataObject, among: list[Any]) -> Any:
        return among[data.draw(st.integers(0, len(among) - 1))]


@pytest.fixture
def same_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Hypothesis draw without the constants that it collects from our imported modules.

    Otherwise a test chooses other stories in a process that has run other tests, and after a number was changed
    somewhere, although it is derandomized (Hypothesis 6.131 and later).
    """
    monkeypatch.setattr(HypothesisProvider, "_maybe_draw_constant", lambda *_, **__: None)


@pytest.mark.usefixtures("same_choices")
@pytest.mark.parametrize("sequences", SEQUENCES)
def test_requested_state_is_reached_and_kept(sequences: int) -> None:
    run_state_machine_as_test(AnyOrder, settings=settings(SAME_SEQUENCES, max_examples=sequences))


@pytest.mark.usefixtures("same_choices")
def test_event_sequences_do_not_depend_on_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Constants(integers=set(range(30)))
    histories = [_histories(monkeypatch, constants) for constants in (Constants(), known)]
    assert histories[0] == histories[1]


def _histories(monkeypatch: pytest.MonkeyPatch, constants: Constants) -> list[str]:
    """Return a few sequences from a Hypothesis that has found ``constants`` in our modules."""
    histories: list[str] = []

    class Recorded(AnyOrder):
        def teardown(self) -> None:
            with self.simulation as simulation:
                histories.extend(simulation.history)

    monkeypatch.setattr(providers, "_get_local_constants", lambda: constants)
    run_state_machine_as_test(Recorded, settings=settings(SAME_SEQUENCES, max_examples=3))
    return histories
