"""Reasons that docs/statuses.md and docs/observability.md do not list, each with the cause."""

from __future__ import annotations

from typing import Final

from cinderblock.reasons import Reason

_GATEWAY: Final = "only in errors of the gateway, which answers with an HTTP code"

INTERNAL_REASONS: Final = {
    Reason.ALREADY_EXISTS: "callers that create objects handle it",
    Reason.SOURCE_VANISHED: "the archiver leaves the file out",
    Reason.PATH_NOT_FOUND: "only in errors of the command line",
    Reason.NOT_IN_VERSION: _GATEWAY,
    Reason.NOT_ACCEPTABLE: _GATEWAY,
    Reason.REQUEST_TIMEOUT: _GATEWAY,
    Reason.REQUEST_TOO_LARGE: _GATEWAY,
    Reason.UNSUPPORTED_MEDIA_TYPE: _GATEWAY,
}
