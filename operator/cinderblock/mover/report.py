"""How a run ends for those outside: the report in the termination log, and the exit code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cinderblock.api.mover import EXIT_PERMANENT, EXIT_SUCCESS, EXIT_TRANSIENT, REPORT_LIMIT, MoverReport
from cinderblock.errors import CinderblockError, fail_reason

TERMINATION_LOG = "/dev/termination-log"
"""Where the kubelet looks for a container's termination message (core/v1 terminationMessagePath)."""

_MESSAGE_BYTES = 2048
_WARNING_CHARACTERS = 255
_EXAMPLES = ((3, 5, 255), (3, 5, 80), (1, 3, 80), (0, 1, 80))
"""Numbers of examples of each loss and of unreadable files, and characters of each; the first row that fits counts."""


def failure(error: CinderblockError) -> MoverReport:
    """The report of a run that ended with this error."""
    return MoverReport(succeeded=False, permanent=error.permanent, reason=error.reason, message=error.message)


def exit_code(report: MoverReport) -> int:
    """What the process is to return."""
    if report.succeeded:
        return EXIT_SUCCESS
    return EXIT_PERMANENT if report.permanent else EXIT_TRANSIENT


def encode_report(report: MoverReport) -> bytes:
    """Return the report as JSON of at most REPORT_LIMIT bytes.

    It cuts the message first, then shortens and leaves out examples. At the end it leaves out warnings, the last ones
    first. Counts stay.
    """
    wire = report.to_wire()
    wire["message"] = _cut(report.message)
    wire["warnings"] = [fail_reason(warning)[:_WARNING_CHARACTERS] for warning in report.warnings]
    for of_losses, of_unreadable, length in _EXAMPLES:
        for loss, told in zip(report.losses, wire["losses"], strict=True):
            told["examples"] = [_shortened(path, length) for path in loss.examples[:of_losses]]
        unreadable = report.unreadable_examples[:of_unreadable]
        wire["unreadableExamples"] = [_shortened(path, length) for path in unreadable]
        if len(_dump(wire)) <= REPORT_LIMIT:
            break
    while len(encoded := _dump(wire)) > REPORT_LIMIT and wire["warnings"]:
        wire["warnings"].pop()
    return encoded


def write_report(report: MoverReport, path: str) -> None:
    """Leave the report where the kubelet finds it; without such a file (outside a pod) it is not written."""
    try:
        with open(path, "r+b") as file:
            file.truncate()
            file.write(encode_report(report))
    except FileNotFoundError:
        return


def _shortened(path: str, length: int) -> str:
    return path if len(path) <= length else path[: length - 1] + "…"


def _cut(message: str) -> str:
    """A message of one line that leaves room for everything else, however many bytes its characters take in JSON."""
    line = " ".join(message.split())
    while len(_dump(line)) > _MESSAGE_BYTES:
        line = line[: len(line) * 3 // 4]
    return line


def _dump(wire: Mapping[str, Any] | str) -> bytes:
    return json.dumps(wire, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
