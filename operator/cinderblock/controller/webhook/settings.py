"""Settings of the webhook. Only the administrator has them: no object of a namespace names a receiver."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cinderblock.errors import InvalidInput
from cinderblock.observability.alert import DAY, DEFAULT_LIMITS, HOUR, AlertLimits

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")
_OWN_HEADERS: Final = frozenset({"content-type", "content-length", "host", "transfer-encoding", "connection"})
"""Headers of the request itself."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Settings of the webhook.

    Attributes:
        url: URL of the receiver; empty: the file ``url`` in the folder has it.
        folder: folder with the files of the Secret (``url``, ``header``) and the certificates (``ca.crt``); None: none.
        header_name: name of the header that gets the content of the file ``header``.
        allow_plaintext: whether the URL may begin with http://.
        allowed_endpoints: networks that the administrator allows, also special ones.
        limits: the limits of alerts about volumes, which are those of the rules for Prometheus.
    """

    url: str = ""
    folder: Path | None = None
    header_name: str = "Authorization"
    allow_plaintext: bool = False
    allowed_endpoints: tuple[str, ...] = ()
    limits: AlertLimits = DEFAULT_LIMITS

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], allowed_endpoints: tuple[str, ...]
    ) -> WebhookSettings | None:
        """Read the CINDERBLOCK_WEBHOOK_* and CINDERBLOCK_ALERT_* variables. None: there is no webhook.

        Raises InvalidInput.
        """
        url, folder = environment.get("CINDERBLOCK_WEBHOOK_URL", ""), environment.get("CINDERBLOCK_WEBHOOK_FOLDER", "")
        if not url and environment.get("CINDERBLOCK_WEBHOOK_URL_IN_SECRET") != "true":
            return None
        name = environment.get("CINDERBLOCK_WEBHOOK_HEADER", "Authorization")
        if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS:
            raise InvalidInput(f"CINDERBLOCK_WEBHOOK_HEADER is {name!r}. Use a name such as Authorization.")
        return cls(
            url=url,
            folder=Path(folder) if folder else None,
            header_name=name,
            allow_plaintext=environment.get("CINDERBLOCK_WEBHOOK_ALLOW_PLAINTEXT") == "true",
            allowed_endpoints=allowed_endpoints,
            limits=_limits(environment),
        )


def _limits(environment: Mapping[str, str]) -> AlertLimits:
    drill_days = _number(environment, "CINDERBLOCK_ALERT_MAX_DRILL_AGE_DAYS", 0)
    return AlertLimits(
        backup_age=_number(environment, "CINDERBLOCK_ALERT_MAX_BACKUP_AGE_HOURS", 26) * HOUR,
        verification_age=_number(environment, "CINDERBLOCK_ALERT_MAX_VERIFICATION_AGE_DAYS", 45) * DAY,
        requires_verification=environment.get("CINDERBLOCK_ALERT_REQUIRE_VERIFICATION") == "true",
        drill_age=drill_days * DAY if drill_days else None,
    )


def _number(environment: Mapping[str, str], name: str, default: int) -> int:
    text = environment.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and len(text) <= 6):
        raise InvalidInput(f"{name} is {text!r}. Use a whole number of at most six digits.")
    return int(text)
