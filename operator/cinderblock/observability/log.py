"""Logs of the operator, the gateway and the mover: one JSON object per line on standard error."""

from __future__ import annotations

import logging
import math
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final

from pythonjsonlogger import core
from pythonjsonlogger import json as pythonjsonlogger
from typing_extensions import override

ACCESS_LOGGER: Final = "cinderblock.gateway.access"
"""Writes one line per request to the gateway."""
BROKER_ACCESS_LOGGER: Final = "cinderblock.broker.access"
"""Writes one line per request to the broker."""

_object_fields: ContextVar[dict[str, str] | None] = ContextVar("object_fields", default=None)
"""The object that is being processed, in this task and in the threads that it waits for."""

_KOPF_ATTRIBUTES: Final = ("settings", "k8s_ref", "k8s_skip")
"""Attributes that kopf adds to its records. Only the reference to the object is of interest."""
_OMITTED_ATTRIBUTES: Final = (*core.RESERVED_ATTRS, "taskName", "color_message", *_KOPF_ATTRIBUTES)
"""Attributes that are not ``extra`` fields. ``color_message`` is uvicorn's; Python 3.11 knows no ``taskName``."""
_FIELDS: Final = {"asctime": "time", "levelname": "level", "name": "logger", "message": "message"}


@contextmanager
def object_context(kind: str, namespace: str, name: str) -> Iterator[None]:
    """Add the object to every line that is logged inside the block."""
    fields = {"object_kind": kind, "object_namespace": namespace, "object_name": name}
    token = _object_fields.set(fields)
    try:
        yield
    finally:
        _object_fields.reset(token)


def add_uid(uid: str) -> None:
    """Add the object's UID to all later lines of the same `object_context`."""
    fields = _object_fields.get()
    if fields is not None:
        fields["object_uid"] = uid


class JsonFormatter(pythonjsonlogger.JsonFormatter):
    """Write time, level, logger, message, object, ``extra`` fields, and the traceback if there is one.

    All own loggers appear under the name of the process, because the names of modules change. The access log keeps its
    name.
    Lines are ASCII, so they stay valid whatever a file name contains and whatever the encoding of the output.
    """

    def __init__(self, process: str) -> None:
        """Format lines of the process ``operator``, ``gateway``, ``broker`` or ``mover``."""
        names = _FIELDS | {"exc_info": "traceback"}
        super().__init__(list(_FIELDS), rename_fields=names, reserved_attrs=_OMITTED_ATTRIBUTES, json_ensure_ascii=True)
        self._logger_name = f"cinderblock.{process}"

    @override
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        """Return the time in UTC with milliseconds, in RFC 3339."""
        return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")

    @override
    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Add the fields of a record, and the object. Fields that are given as ``extra`` win over the object."""
        super().add_fields(log_data, record, message_dict)
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = self._stable_name(record.name)
        for key, value in ((_object_fields.get() or {}) | _kopf_object(record)).items():
            log_data.setdefault(key, value)

    @override
    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        """Turn every value into a number or text."""
        return {key: _to_scalar(value) for key, value in log_data.items()}

    def _stable_name(self, name: str) -> str:
        is_own = name.partition(".")[0] == "cinderblock" and name not in (ACCESS_LOGGER, BROKER_ACCESS_LOGGER)
        return self._logger_name if is_own else name


def _kopf_object(record: logging.LogRecord) -> dict[str, str]:
    """Return the fields of the object that a record of kopf refers to."""
    reference = getattr(record, "k8s_ref", None)
    if not isinstance(reference, Mapping):
        return {}
    return {
        f"object_{part}": str(reference[part]) for part in ("kind", "namespace", "name", "uid") if reference.get(part)
    }


def _to_scalar(value: object) -> str | int | float:
    """Return a value that JSON has, which NaN is not. Logging must not fail, not even if ``str`` does."""
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    try:
        return str(value)
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__}>"


def configure(process: str, level: int = logging.INFO) -> None:
    """Send all log lines of this process to standard error, as JSON.

    Below INFO only our own lines are written: botocore's debug lines show requests with their headers and tokens.

    Args:
        process: ``operator``, ``gateway``, ``broker`` or ``mover``.
        level: the least severe level that is written.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(process))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))
    logging.getLogger("cinderblock").setLevel(level)
    for verbose in ("kopf", "uvicorn"):
        # kopf logs every event that it passes on, uvicorn every start and stop.
        logging.getLogger(verbose).setLevel(max(level, logging.WARNING))
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """Log the exception that ends the process."""
    logging.getLogger(__name__).critical("The process ended unexpectedly", exc_info=(kind, error, traceback))
