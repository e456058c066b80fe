"""A log line is one JSON object, and says which object it concerns."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from cinderblock.controller.request import ObjectKey
from cinderblock.controller.requeue import Result
from cinderblock.controller.worker import run_worker
from cinderblock.controller.workqueue import WorkQueue
from cinderblock.errors import StoreUnreachable
from cinderblock.observability import log as observability_log

KEY = ObjectKey("VolumeBackup", "shop", "nightly")
FIELDS = {"object_kind": "VolumeBackup", "object_namespace": "shop", "object_name": "nightly"}
log = logging.getLogger("cinderblock.somewhere")


class Lines(logging.Handler):
    """Keeps what would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(observability_log.JsonFormatter())
        self.written: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        assert "\n" not in text
        self.written.append(json.loads(text))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    handler = Lines()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.written
    root.removeHandler(handler)
    root.setLevel(level)


def test_every_line_of_the_work_on_an_object_names_it(lines: list[dict[str, Any]]) -> None:
    with observability_log.object_context(*KEY):
        log.info("before it was read")
        observability_log.add_uid("uid-1")
        log.info("after")
    log.info("elsewhere")
    assert [{key: line[key] for key in line if key.startswith("object_")} for line in lines] == [
        FIELDS,
        FIELDS | {"object_uid": "uid-1"},
        {},
    ]


async def test_so_does_a_line_from_a_thread_that_the_work_waits_for(lines: list[dict[str, Any]]) -> None:
    with observability_log.object_context(*KEY):
        await asyncio.to_thread(log.info, "from a thread")
    assert lines[0]["object_name"] == "nightly"


async def test_objects_that_are_worked_on_side_by_side_are_not_mixed_up(lines: list[dict[str, Any]]) -> None:
    queue, names = WorkQueue(), [f"backup-{number}" for number in range(8)]
    all_begun, all_failed = asyncio.Barrier(len(names)), asyncio.Barrier(len(names) + 1)

    async def reconcile(key: ObjectKey) -> Result:
        if key.name == "end":
            await all_failed.wait()
            return Result()
        observability_log.add_uid(f"uid-of-{key.name}")
        await all_begun.wait()
        log.info("looked at %s", key.name)
        raise StoreUnreachable("away")

    for name in names:
        await queue.add(ObjectKey("VolumeBackup", "shop", name))
    workers = [asyncio.create_task(run_worker(queue, reconcile)) for _ in names]
    await asyncio.gather(*(queue.add(ObjectKey("VolumeBackup", str(number), "end"), 0.05) for number in range(8)))
    await all_failed.wait()
    for worker in workers:
        worker.cancel()
    await asyncio.wait(workers)
    for line in lines:
        assert line["object_uid"] == f"uid-of-{line['object_name']}"
    assert {line["object_name"] for line in lines} == set(names)
    failed = [line for line in lines if line["level"] == "warning"]
    assert {line["reason"] for line in failed} == {"StoreUnreachable"}


def test_a_traceback_stays_in_its_line(lines: list[dict[str, Any]]) -> None:
    try:
        int("a defect")
    except ValueError:
        log.exception("unexpected")
    assert "ValueError: invalid literal" in lines[0]["traceback"]


@pytest.fixture
def configured(lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As the operator is with log level debug, but that its lines are kept."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    names = ("", "cinderblock", "kopf")
    levels, handlers = {name: logging.getLogger(name).level for name in names}, logging.getLogger().handlers[:]
    observability_log.configure(logging.DEBUG)
    logging.getLogger().handlers[:] = handlers
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("configured")
def test_what_ends_the_process_is_a_line(lines: list[dict[str, Any]]) -> None:
    error = ExceptionGroup("all tasks", [ValueError("a defect")])
    sys.excepthook(type(error), error, None)
    assert lines[-1]["level"] == "critical"
    assert "a defect" in lines[-1]["traceback"]


@pytest.mark.usefixtures("configured")
def test_a_client_librarys_view_of_requests_is_never_written(lines: list[dict[str, Any]]) -> None:
    log.debug("of our own")
    logging.getLogger("botocore.endpoint").debug("Sending http request: X-Amz-Security-Token: ...")
    logging.getLogger("botocore.endpoint").info("something that concerns people")
    assert [line["message"] for line in lines] == ["of our own", "something that concerns people"]


def test_kopfs_lines_name_their_object_and_nothing_else(lines: list[dict[str, Any]]) -> None:
    reference = {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "mover", "uid": "u"}
    log.warning("from kopf", extra={"k8s_ref": reference, "settings": object(), "k8s_skip": True})
    shown = {key: value for key, value in lines[0].items() if key not in ("time", "level", "logger", "message")}
    assert shown == {"object_kind": "Pod", "object_namespace": "shop", "object_name": "mover", "object_uid": "u"}
