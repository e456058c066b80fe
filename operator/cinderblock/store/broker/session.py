"""Session credentials of a mover, which are renewed before they expire."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cinderblock.api.broker import CredentialsAnswer
from cinderblock.store.credentials import S3Credentials

RENEW_BEFORE: Final = 0.25
"""Share of the lifetime that is left when credentials are renewed. The lifetime at AWS is at least 15 minutes."""
RETRY_SECONDS: Final = 30.0
"""Seconds between two attempts to renew credentials that still work."""
MIN_AGE_SECONDS: Final = 60.0
"""Age below which credentials are not replaced. If the store rejects new credentials, newer ones do not help."""


class SessionSource:
    """The session credentials of one operation, for a `RotatingStore`. Several threads may use it.

    The clock of this machine may be wrong. If the credentials expire earlier than expected, the store rejects them, and
    `read` asks for others.

    Args:
        ask: asks the broker, and repeats that while the broker does not answer.
        ask_once: asks the broker once.
        now: the time of day.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        ask: Callable[[], CredentialsAnswer],
        ask_once: Callable[[], CredentialsAnswer],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._ask_once = ask_once
        self._now = now
        self._clock = clock
        self._lock = threading.Lock()
        self._credentials: S3Credentials | None = None
        self._asked_at = 0.0
        self._renew_at = 0.0

    def read(self) -> S3Credentials:
        """Return new credentials, or the present ones if they are new. Raises what the broker raises."""
        with self._lock:
            is_new = self._clock() - self._asked_at < MIN_AGE_SECONDS
            if self._credentials is not None and is_new:
                return self._credentials
            return self._take(self._ask())

    def renew(self) -> S3Credentials | None:
        """Return new credentials if the present ones are about to expire. Raises what the broker raises.

        The present ones still work, so the broker is asked only once. After a failure, this returns None for
        RETRY_SECONDS.
        """
        if self._clock() < self._renew_at:
            return None
        with self._lock:
            self._renew_at = self._clock() + RETRY_SECONDS
            return self._take(self._ask_once())

    def _take(self, answer: CredentialsAnswer) -> S3Credentials:
        lifetime = (answer.expires_at - self._now()).total_seconds()
        self._asked_at = self._clock()
        self._renew_at = self._asked_at + max(lifetime * (1 - RENEW_BEFORE), MIN_AGE_SECONDS)
        self._credentials = S3Credentials(answer.access_key_id, answer.secret_access_key, answer.session_token)
        return self._credentials
