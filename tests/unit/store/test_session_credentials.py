"""Session credentials are renewed before they expire, and when the store rejects them."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from typing_extensions import override

from cinderblock.api.broker import CredentialsAnswer
from cinderblock.errors import AccessDenied, CredentialsExpired, StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store.base import ObjectStore
from cinderblock.store.broker.session import MIN_AGE_SECONDS, RETRY_SECONDS, SessionSource
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.memory import MemoryStore
from cinderblock.store.retrying import RetryClock
from cinderblock.store.rotating import KEPT_STORES, RotatingStore
from tests.support.store.faults import FaultyStore

HOUR = 3600.0
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Sessions:
    """A broker and a store with session credentials.

    Attributes:
        seconds: the time.
        ahead: seconds by which the mover's clock is ahead.
        error: what the broker raises.
        given: sessions that it has given.
        patient: calls that would have been repeated.
        expire_at: when each session expires.
        denies: whether the store denies everything.
    """

    seconds: float = 0.0
    ahead: float = 0.0
    error: Exception | None = None
    given: int = 0
    patient: int = 0
    expire_at: dict[str, float] = field(default_factory=dict)
    denies: bool = False
    objects: MemoryStore = field(default_factory=MemoryStore)
    opened: list[Guarded] = field(default_factory=list)

    def ask_once(self) -> CredentialsAnswer:
        if self.error is not None:
            raise self.error
        self.given += 1
        name = f"session-{self.given}"
        self.expire_at[name] = self.seconds + HOUR
        expires = START + timedelta(seconds=self.expire_at[name])
        return CredentialsAnswer(access_key_id=name, secret_access_key="s", session_token="t", expires_at=expires)

    def ask(self) -> CredentialsAnswer:
        self.patient += 1
        return self.ask_once()

    def open(self, credentials: S3Credentials) -> ObjectStore:
        made = Guarded(self, credentials.access_key)
        self.opened.append(made)
        return made

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    def store(self) -> RotatingStore:
        source = SessionSource(
            self.ask,
            self.ask_once,
            lambda: START + timedelta(seconds=self.seconds + self.ahead),
            lambda: self.seconds,
        )
        clock = RetryClock(lambda: self.seconds, self.sleep)
        return RotatingStore(source.read, self.open, clock, source.renew)


class Guarded(FaultyStore):
    """The objects, for anyone who has a session that has not expired."""

    def __init__(self, sessions: Sessions, name: str) -> None:
        super().__init__(sessions.objects)
        self._sessions = sessions
        self._name = name
        self.is_closed = False

    @override
    def check(self) -> None:
        if self._sessions.denies:
            raise AccessDenied("no permission")
        if self._sessions.seconds >= self._sessions.expire_at[self._name]:
            raise CredentialsExpired("expired")
        super().check()

    @override
    def close(self) -> None:
        self.is_closed = True


def test_credentials_are_renewed_before_they_expire() -> None:
    sessions = Sessions()
    with closing(sessions.store()) as store:
        for _ in range(10 * 12):
            store.check()
            sessions.seconds += HOUR / 12
    assert sessions.given == 14
    assert sessions.patient == 1
    assert sum(not opened.is_closed for opened in sessions.opened) == 0


def test_old_stores_are_closed() -> None:
    sessions = Sessions()
    with closing(sessions.store()) as store:
        for _ in range(10):
            store.check()
            sessions.seconds += HOUR - 1
        assert sum(not opened.is_closed for opened in sessions.opened) == KEPT_STORES


@pytest.mark.parametrize("ahead", [-HOUR, HOUR * 24])
def test_wrong_clock_costs_a_call_and_no_failure(ahead: float) -> None:
    sessions = Sessions(ahead=ahead)
    with closing(sessions.store()) as store:
        for _ in range(24):
            store.check()
            sessions.seconds += HOUR / 4
    assert sessions.given <= 24


def test_absent_broker_delays_nothing_while_credentials_work() -> None:
    sessions = Sessions()
    with closing(sessions.store()) as store:
        store.check()
        sessions.error = StoreUnreachable("away", reason=Reason.BROKER_UNAVAILABLE)
        sessions.seconds = HOUR * 0.8
        for _ in range(10):
            store.check()
            sessions.seconds += RETRY_SECONDS / 10
        assert sessions.patient == 1
        sessions.error = None
        sessions.seconds += RETRY_SECONDS
        store.check()
    assert sessions.given == 2


def test_absent_broker_after_the_expiry_is_a_temporary_error() -> None:
    sessions = Sessions()
    with closing(sessions.store()) as store:
        store.check()
        sessions.error = StoreUnreachable("away", reason=Reason.BROKER_UNAVAILABLE)
        sessions.seconds = HOUR + 1
        with pytest.raises(StoreUnreachable, match="away"):
            store.check()


def test_refusal_of_the_broker_is_reported() -> None:
    sessions = Sessions()
    with closing(sessions.store()) as store:
        store.check()
        sessions.error = AccessDenied("not yours any more", reason=Reason.NOT_GRANTED)
        sessions.seconds = HOUR + 1
        with pytest.raises(AccessDenied, match="not yours any more"):
            store.check()
    assert sessions.seconds == HOUR + 1


@pytest.mark.parametrize("age", [0.0, MIN_AGE_SECONDS + 1])
def test_missing_permission_is_reported_after_one_renewal(age: float) -> None:
    sessions = Sessions()
    with closing(sessions.store()) as store:
        store.check()
        sessions.denies = True
        sessions.seconds += age
        with pytest.raises(AccessDenied, match="no permission"):
            store.check()
    assert sessions.given == (2 if age else 1)
