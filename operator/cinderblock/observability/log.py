"""Logs as one JSON object per line, for people and for machines that collect them."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from typing_extensions import override

_concerning: ContextVar[dict[str, str] | None] = ContextVar("concerning", default=None)
"""The object that is worked on, wherever a line is written: in a task, or in a thread that it waits for."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every record has; what else a record carries was given as ``extra``."""
_KOPF = frozenset({"settings", "k8s_ref", "k8s_skip"})
"""What kopf hangs onto its records; of it, the reference says which object is concerned."""
_LEFT_OUT = _STANDARD | _KOPF


def _of_kopf(record: logging.LogRecord) -> dict[str, str]:
    reference = getattr(record, "k8s_ref", None)
    if not isinstance(reference, Mapping):
        return {}
    return {
        f"object_{part}": str(reference[part]) for part in ("kind", "namespace", "name", "uid") if reference.get(part)
    }


def _plain(value: object) -> str | int | float:
    return value if isinstance(value, int | float) else str(value)


@contextmanager
def object_context(kind: str, namespace: str, name: str) -> Iterator[None]:
    """Add an object to every line that is written inside."""
    fields = {"object_kind": kind, "object_namespace": namespace, "object_name": name}
    token = _concerning.set(fields)
    try:
        yield
    finally:
        _concerning.reset(token)


def add_uid(uid: str) -> None:
    """Every further line of the same work says the object's UID too."""
    fields = _concerning.get()
    if fields is not None:
        fields["object_uid"] = uid


class JsonFormatter(logging.Formatter):
    """Time, level, logger, message, the object concerned, whatever was given as ``extra``, and the traceback if any."""

    @override
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= _concerning.get() or {}
        line |= _of_kopf(record)
        line |= {key: _plain(value) for key, value in vars(record).items() if key not in _LEFT_OUT and key[0] != "_"}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: int = logging.INFO) -> None:
    """Send every log line as JSON to standard error.

    Below INFO only our own are written: botocore's debug lines show requests with their headers, tokens among them.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("cinderblock").setLevel(level)
    # kopf tells of every event it passes on; what happened to an object is told by us.
    logging.getLogger("kopf").setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    sys.excepthook = _tell_of_the_end


def _tell_of_the_end(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """What ends the process is a line as well."""
    logging.getLogger(__name__).critical("The process ends", exc_info=(kind, error, traceback))
