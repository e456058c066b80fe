"""The mover's operation ``verify``: damage is a finding, and everything else an error."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cinderblock.api.mover import (
    REPORT_LIMIT,
    MoverOperation,
    MoverReport,
    MoverTask,
    StoreLocation,
    VerifyReport,
    VerifyTask,
    task_to_env,
)
from cinderblock.api.v1alpha1.verification import VerificationLevel
from cinderblock.errors import StoreThrottled, StoreUnreachable
from cinderblock.mover.report import encode_report
from cinderblock.mover.verification import run_verification
from cinderblock.repository.progress import Progress
from cinderblock.repository.verify import findings
from cinderblock.store.base import KEY_LIMIT
from cinderblock.store.counted import CountedStore
from cinderblock.store.memory import MemoryStore
from tests.support.mover.backups import KEYS, PREFIX, Backups, key_ring
from tests.support.mover.verifications import short_key, small_units
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.faults import FaultyStore
from tests.unit.mover.test_main import Pod

LEVELS = pytest.mark.parametrize("level", [VerificationLevel.STRUCTURE, VerificationLevel.DATA])


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def backups() -> Backups:
    """Return the backups "one" and "two" of a volume with a few packs."""
    made = Backups(MemoryStore(), key_ring())
    source = MemorySource()
    with small_units():
        for number in range(40):
            source.add(b"file-%02d" % number, (0, os.urandom(9000)))
        made.back_up(source, "one")
        source.add(b"file-07", (0, b"changed"), stamp=9)
        made.back_up(source, "two", "one")
    return made


def pod_for(path: Path, backups: Backups) -> Pod:
    pod = Pod(path, KEYS)
    pod.store = backups.store
    return pod


def task_for(backups: Backups, level: VerificationLevel, backup: str = "two", **share: int) -> MoverTask:
    task = backups.task(MoverOperation.VERIFY, backup, verify=VerifyTask(level=level, **share))
    return task.model_copy(update={"expected": backups.expected(backup)})


def found(pod: Pod) -> VerifyReport:
    assert pod.report.succeeded
    assert pod.report.verification is not None
    return pod.report.verification


@LEVELS
def test_sound_backup_is_verified(tmp_path: Path, backups: Backups, level: VerificationLevel) -> None:
    pod = pod_for(tmp_path, backups)
    counted = CountedStore(backups.store)
    pod.store = counted
    assert pod.run(task_for(backups, level)) == 0
    packs = len(backups.keys_in_use("two") | backups.keys_in_use("one"))
    listed = found(pod)
    assert (listed.packs_verified, listed.damaged_count, listed.complete) == (listed.packs, 0, True)
    assert listed.packs == (packs if level is VerificationLevel.DATA else len(backups.keys_in_use("two")))
    assert listed.bytes_read == counted.counts.bytes_got > 0
    assert pod.report.requests == counted.counts.requests
    assert pod.report.message == ""
    assert (counted.counts.puts, counted.counts.deletes) == (0, 0)
    assert pod.lines[-1].bytes_done == pod.lines[-1].bytes_total > 0


@LEVELS
def test_damage_is_a_success_that_names_objects_and_backups(
    tmp_path: Path, backups: Backups, level: VerificationLevel
) -> None:
    pod = pod_for(tmp_path, backups)
    lost = sorted(backups.keys_in_use("two") & backups.keys_in_use("one"))[:2]
    backups.store.delete(lost)
    assert pod.run(task_for(backups, level)) == 0
    listed = found(pod)
    assert (listed.damaged_count, sorted(listed.damaged)) == (2, [short_key(key) for key in lost])
    assert (listed.affected_count, listed.affected) == (2, ["two", "one"])
    assert pod.report.message.startswith("2 objects are damaged or missing, and 2 backups need them. ")


@LEVELS
@pytest.mark.parametrize("error", [StoreUnreachable("away"), StoreThrottled("slow down")])
def test_store_that_fails_is_a_transient_error_without_findings(
    tmp_path: Path, backups: Backups, level: VerificationLevel, error: Exception
) -> None:
    pod = pod_for(tmp_path, backups)
    faulty = FaultyStore(backups.store)
    faulty.on("list", "packs/").raises(error).times(9)
    pod.store = faulty
    assert pod.run(task_for(backups, level)) == 4
    assert pod.report.verification is None


@LEVELS
def test_progress_shows_life_while_manifests_are_read(
    tmp_path: Path, backups: Backups, level: VerificationLevel
) -> None:
    """A mover whose progress stands still counts as stalled."""
    seen: list[Progress] = []
    run_verification(task_for(backups, level), backups.store, backups.keys, seen.append)
    assert [progress.bytes_stored for progress in seen] == sorted(progress.bytes_stored for progress in seen)
    assert all(progress.bytes_done <= progress.bytes_total for progress in seen)
    lost = max(backups.keys_in_use("two") & backups.keys_in_use("one"))
    backups.store.delete([lost])
    before = len(seen)
    run_verification(task_for(backups, level), backups.store, backups.keys, seen.append)
    assert len(seen) - before > before, "the second reading reports, too"


def test_store_that_fails_while_packs_are_read_is_a_transient_error(tmp_path: Path, backups: Backups) -> None:
    pod = pod_for(tmp_path, backups)
    faulty = FaultyStore(backups.store)
    faulty.on("get", "packs/").raises(StoreUnreachable("away")).after(2).times(9)
    pod.store = faulty
    assert pod.run(task_for(backups, VerificationLevel.DATA)) == 4
    assert pod.report.reason == "StoreUnreachable"


@LEVELS
def test_missing_key_is_an_error(tmp_path: Path, backups: Backups, level: VerificationLevel) -> None:
    pod = Pod(tmp_path)
    pod.store = backups.store
    assert pod.run(task_for(backups, level)) == 3
    assert (pod.report.reason, pod.report.verification) == ("KeyUnavailable", None)


@LEVELS
def test_lost_manifest_is_an_error_with_its_reason(tmp_path: Path, backups: Backups, level: VerificationLevel) -> None:
    pod = pod_for(tmp_path, backups)
    backups.store.delete([backups.manifest_key("two")])
    assert pod.run(task_for(backups, level)) == 3
    assert (pod.report.reason, pod.report.verification) == ("ManifestMissing", None)


def test_task_without_a_level_that_a_mover_knows_is_refused(tmp_path: Path, backups: Backups) -> None:
    pod = pod_for(tmp_path, backups)
    assert pod.run(backups.task(MoverOperation.VERIFY, "two")) == 3
    assert pod.run(task_for(backups, VerificationLevel.RESTORE)) == 3
    assert pod.run(task_for(backups, VerificationLevel.DATA, part=4, parts=3)) == 3
    assert pod.report.reason == "InvalidInput"


def test_limits_end_a_run_after_whole_packs(tmp_path: Path, backups: Backups) -> None:
    pod = pod_for(tmp_path, backups)
    assert pod.run(task_for(backups, VerificationLevel.DATA, max_bytes=1)) == 0
    assert (found(pod).packs_verified, found(pod).complete) == (1, False)
    assert pod.run(task_for(backups, VerificationLevel.DATA, max_seconds=0)) == 0
    assert (found(pod).packs_verified, found(pod).complete) == (1, False)
    assert pod.run(task_for(backups, VerificationLevel.DATA, max_bytes=1 << 30, max_seconds=600)) == 0
    assert (found(pod).packs_verified, found(pod).complete) == (found(pod).packs, True)


def test_runs_with_a_limit_reach_every_pack(tmp_path: Path, backups: Backups) -> None:
    read: set[str] = set()

    class Recording(MemoryStore):
        def get(self, key: str, start: int = 0, length: int | None = None) -> bytes:
            if "/packs/" in key:
                read.add(key)
            return backups.store.get(key, start, length)

        def list(self, prefix: str):  # type: ignore[no-untyped-def]
            return backups.store.list(prefix)

    pod = pod_for(tmp_path, backups)
    pod.store = Recording()
    needed = backups.keys_in_use("two") | backups.keys_in_use("one")
    runs = 0
    while read != needed:
        assert pod.run(task_for(backups, VerificationLevel.DATA, max_bytes=1)) == 0
        runs += 1
        # Each run reads one pack of about eight, chosen at random: 200 runs miss one in 10^10 tests.
        assert runs < 200


def test_longest_report_fits_and_keeps_counts() -> None:
    volume, backup, attempt = "v" * 64, "b" * 62, "a" * 32
    report = MoverReport(
        succeeded=True,
        message="\U0001f4be" * 3000,
        manifest="m" * KEY_LIMIT,
        verification=VerifyReport(
            packs=1 << 40,
            packs_verified=1 << 40,
            bytes_read=1 << 62,
            damaged_count=1 << 40,
            damaged=[f"packs/{volume}/{backup}{number:02}/{attempt}-{1 << 32:010}" for number in range(20)],
            affected_count=1 << 20,
            affected=[f"{backup}{number:02}" for number in range(20)],
            unreadable_count=1 << 20,
        ),
        warnings=["w" * 255] * 8,
    )
    encoded = encode_report(report)
    assert len(encoded) <= REPORT_LIMIT
    parsed = MoverReport.model_validate_json(encoded).verification
    assert parsed is not None
    assert report.verification is not None
    assert parsed.damaged == report.verification.damaged[: len(parsed.damaged)] != []
    assert parsed.affected == report.verification.affected[: len(parsed.affected)] != []
    assert (parsed.damaged_count, parsed.affected_count, parsed.bytes_read) == (1 << 40, 1 << 20, 1 << 62)


def test_ordinary_report_names_twenty_objects() -> None:
    uid = "0b8e0c1e-6f0c-4f0f-9d55-3f6f0a3a1c01"
    report = MoverReport(
        succeeded=True,
        message="20 objects are damaged or missing, and 20 backups need them. " + "c" * 200,
        manifest=f"some/prefix/backups/{uid}/{uid}.manifest",
        verification=VerifyReport(
            damaged=[f"packs/{uid}/{uid}/{'a' * 32}-{number:06}" for number in range(20)], affected=[uid] * 20
        ),
    )
    assert MoverReport.model_validate_json(encode_report(report)) == report


STOPPED = """
import os, sys, threading
from cinderblock.mover.main import main
from cinderblock.store.memory import MemoryStore

class Stuck(MemoryStore):
    def list(self, prefix):
        print("stuck", flush=True)
        threading.Event().wait()

sys.exit(main(os.environ, secrets_directory=sys.argv[1], termination_log=sys.argv[2], opener=lambda *_: Stuck()))
"""


def test_sigterm_ends_a_verification_at_once(tmp_path: Path, backups: Backups) -> None:
    pod = pod_for(tmp_path, backups)
    environment = os.environ | task_to_env(task_for(backups, VerificationLevel.DATA)) | {"PYTHONPATH": "operator"}
    command = [sys.executable, "-c", STOPPED, str(pod.secrets), str(pod.log)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while "stuck" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 4
    assert (pod.report.permanent, pod.report.reason) == (False, "Terminated")


def test_store_below_the_longest_prefix_is_verified(tmp_path: Path) -> None:
    prefix = "p" * 800
    source = MemorySource()
    source.add(b"file", (0, os.urandom(50_000)))
    backups = Backups(MemoryStore())
    backups.back_up(source, "one")
    moved = MemoryStore()
    for item in backups.store.list(""):
        if not item.key.endswith("000000"):
            moved.put(prefix + item.key.removeprefix(PREFIX), backups.store.get(item.key))
    pod = Pod(tmp_path)
    pod.store = moved
    task = task_for(backups, VerificationLevel.DATA, "one")
    location = StoreLocation(container="container", prefix=prefix)
    key = prefix + backups.manifest_key("one").removeprefix(PREFIX)
    assert pod.run(task.model_copy(update={"store": location, "manifest": key})) == 0
    assert found(pod).damaged == [short_key(key) for key in backups.keys_in_use("one")]
