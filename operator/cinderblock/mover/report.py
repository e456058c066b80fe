"""Write the report of a run to the termination log, and choose the exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cinderblock.api.mover import EXIT_PERMANENT, EXIT_SUCCESS, EXIT_TRANSIENT, REPORT_LIMIT, MoverReport
from cinderblock.errors import CinderblockError, fail_reason

TERMINATION_LOG = "/dev/termination-log"
"""File from which the kubelet reads a container's termination message (core/v1 terminationMessagePath)."""

_MESSAGE_BYTES = 2048
_WARNING_CHARACTERS = 255
_EXAMPLES = ((3, 5, 255), (3, 5, 80), (1, 3, 80), (0, 1, 80))
"""Examples of each loss, examples of unreadable files, and characters of each. The first row that fits is used."""

_COPY_MESSAGES = (160, 80, 20, 1)
"""Characters of the message about each copy, in turn, until the report fits."""


def failure(error: CinderblockError) -> MoverReport:
    """Return the report of a run that failed with this error."""
    return MoverReport(succeeded=False, permanent=error.permanent, reason=error.reason, message=error.message)


def exit_code(report: MoverReport) -> int:
    """Return the exit code of the process."""
    if report.succeeded:
        return EXIT_SUCCESS
    return EXIT_PERMANENT if report.permanent else EXIT_TRANSIENT


def encode_report(report: MoverReport) -> bytes:
    """Return the report as JSON of at most REPORT_LIMIT bytes.

    This shortens the message first, then shortens and leaves out examples, and then leaves out warnings, ids of
    affected backups and keys of damaged objects from the end. Counts stay.
    """
    wire = report.to_wire()
    wire["message"] = _shorten_message(report.message)
    wire["warnings"] = [fail_reason(warning)[:_WARNING_CHARACTERS] for warning in report.warnings]
    for loss_examples, unreadable_examples, length in _EXAMPLES:
        for loss, wire_loss in zip(report.losses, wire["losses"], strict=True):
            wire_loss["examples"] = [_shorten(path, length) for path in loss.examples[:loss_examples]]
        unreadable = report.unreadable_examples[:unreadable_examples]
        wire["unreadableExamples"] = [_shorten(path, length) for path in unreadable]
        if len(_dump(wire)) <= REPORT_LIMIT:
            break
    _shorten_copies(wire)
    verification = wire.get("verification") or {}
    for named in (wire["warnings"], verification.get("affected", []), verification.get("damaged", [])):
        while len(_dump(wire)) > REPORT_LIMIT and len(named) > (named is not wire["warnings"]):
            named.pop()
    return _dump(wire)


def _shorten_copies(wire: dict[str, Any]) -> None:
    """Shorten the messages about copies until the report fits. Each copy keeps its id and its reason."""
    for length in _COPY_MESSAGES:
        if len(_dump(wire)) <= REPORT_LIMIT:
            return
        for copied in wire.get("copies", []):
            if copied.get("message"):
                copied["message"] = _shorten(copied["message"], length)


def write_report(report: MoverReport, path: str) -> None:
    """Write the report to a file for the kubelet. If the file does not exist (outside a pod), do nothing."""
    try:
        with open(path, "r+b") as file:
            file.truncate()
            file.write(encode_report(report))
    except FileNotFoundError:
        return


def _shorten(path: str, length: int) -> str:
    return path if len(path) <= length else path[: length - 1] + "…"


def _shorten_message(message: str) -> str:
    """Return the message on one line, shortened to a number of bytes in JSON."""
    line = " ".join(message.split())
    while len(_dump(line)) > _MESSAGE_BYTES:
        line = line[: len(line) * 3 // 4]
    return line


def _dump(wire: Mapping[str, Any] | str) -> bytes:
    return json.dumps(wire, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
