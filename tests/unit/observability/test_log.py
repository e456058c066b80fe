"""Log lines are JSON objects that name the Kubernetes object they concern."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from datetime import datetime
from enum import Enum
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
STANDARD_FIELDS = {"time", "level", "logger", "message"}
log = logging.getLogger("cinderblock.somewhere")


class RecordingHandler(logging.Handler):
    """Keeps the lines that the operator would write."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(observability_log.JsonFormatter("operator"))
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        assert line.isascii()
        assert line.isprintable()
        self.lines.append(json.loads(line, parse_constant=pytest.fail))


@pytest.fixture
def lines() -> Iterator[list[dict[str, Any]]]:
    handler = RecordingHandler()
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def test_line_has_time_level_logger_and_message(lines: list[dict[str, Any]]) -> None:
    """The names of modules are not part of the log, so that they can change."""
    log.info("Read %d objects", 3)
    line = lines[0]
    time = datetime.fromisoformat(line.pop("time"))
    assert time.isoformat(timespec="milliseconds").endswith("+00:00")
    assert line == {"level": "info", "logger": "cinderblock.operator", "message": "Read 3 objects"}


def test_access_log_and_libraries_keep_their_logger_names(lines: list[dict[str, Any]]) -> None:
    for name in ("cinderblock.gateway.access", "kopf.objects", "cinderblocks"):
        logging.getLogger(name).warning("message")
    assert [line["logger"] for line in lines] == ["cinderblock.gateway.access", "kopf.objects", "cinderblocks"]


class Broken:
    def __str__(self) -> str:
        raise ValueError


class Colour(Enum):
    RED = object()


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (3, 3),
        (1.5, 1.5),
        (True, True),
        ("text", "text"),
        ("two\nlines, \u00e4, \udcff", "two\nlines, \u00e4, \udcff"),
        (b"\xff", "b'\\xff'"),
        (None, "None"),
        ((1, b"2"), "(1, b'2')"),
        ({(1, 2): 3}, "{(1, 2): 3}"),
        (Colour.RED, "Colour.RED"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (Broken(), "<Broken>"),
    ],
)
def test_any_extra_value_gives_a_valid_line(lines: list[dict[str, Any]], value: object, written: object) -> None:
    log.info("message", extra={"field": value})
    assert lines[0]["field"] == written


def test_lines_logged_while_processing_an_object_name_it(lines: list[dict[str, Any]]) -> None:
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


async def test_lines_from_awaited_threads_name_the_object(lines: list[dict[str, Any]]) -> None:
    with observability_log.object_context(*KEY):
        await asyncio.to_thread(log.info, "from a thread")
    assert lines[0]["object_name"] == "nightly"


async def test_lines_of_concurrent_objects_are_not_mixed_up(lines: list[dict[str, Any]]) -> None:
    queue, names = WorkQueue(), [f"backup-{number}" for number in range(8)]
    all_begun, all_failed = asyncio.Barrier(len(names)), asyncio.Barrier(len(names) + 1)

    async def reconcile(key: ObjectKey) -> Result:
        if key.name == "end":
            await all_failed.wait()
            return Result()
        observability_log.add_uid(f"uid-of-{key.name}")
        await all_begun.wait()
        log.info("processed %s", key.name)
        raise StoreUnreachable("unreachable")

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


def test_traceback_stays_in_its_line(lines: list[dict[str, Any]]) -> None:
    try:
        int("a defect")
    except ValueError:
        log.exception("unexpected")
    assert "ValueError: invalid literal" in lines[0]["traceback"]


@pytest.fixture
def configured(lines: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Configure the log like the operator at level debug, but keep its lines."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    names = ("", "cinderblock", "kopf", "uvicorn")
    levels, handlers = {name: logging.getLogger(name).level for name in names}, logging.getLogger().handlers[:]
    observability_log.configure("operator", logging.DEBUG)
    logging.getLogger().handlers[:] = handlers
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.mark.usefixtures("configured")
def test_uncaught_exception_becomes_a_line(lines: list[dict[str, Any]]) -> None:
    error = ExceptionGroup("all tasks", [ValueError("a defect")])
    sys.excepthook(type(error), error, None)
    assert lines[-1]["level"] == "critical"
    assert "a defect" in lines[-1]["traceback"]


@pytest.mark.usefixtures("configured")
def test_debug_lines_of_client_libraries_are_never_written(lines: list[dict[str, Any]]) -> None:
    log.debug("own line")
    logging.getLogger("botocore.endpoint").debug("Sending http request: X-Amz-Security-Token: ...")
    logging.getLogger("botocore.endpoint").info("Retrying")
    assert [line["message"] for line in lines] == ["own line", "Retrying"]


def test_lines_of_kopf_name_their_object_and_nothing_else(lines: list[dict[str, Any]]) -> None:
    reference = {"apiVersion": "v1", "kind": "Pod", "namespace": "shop", "name": "mover", "uid": "u"}
    log.warning("from kopf", extra={"k8s_ref": reference, "settings": object(), "k8s_skip": True})
    extra = {key: value for key, value in lines[0].items() if key not in STANDARD_FIELDS}
    assert extra == {"object_kind": "Pod", "object_namespace": "shop", "object_name": "mover", "object_uid": "u"}
