"""Answers, refusals and faults of a broker, as a mover gets them. The broker is a real TLS server."""

from __future__ import annotations

import json
import ssl
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cinderblock.api.broker import BrokerLocation
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    IntegrityError,
    InvalidInput,
    KeyUnavailable,
    PermanentError,
    SealedTooLate,
    StoreReadOnly,
    StoreThrottled,
    StoreTooSlow,
    StoreUnreachable,
)
from cinderblock.format.crypto.keyring import DataKey
from cinderblock.reasons import Reason
from cinderblock.store.broker import transport
from cinderblock.store.broker.client import BrokerClient
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.retrying import BROKERED_RETRIES, RetryClock
from tests.support.cluster.certificates import Authority
from tests.support.mover.backups import key_ring
from tests.support.store.signing_broker import (
    TOKEN,
    Fault,
    SigningBroker,
    break_off,
    hang_up,
    refuse,
    reply,
    signing_broker,
    trickle,
)

OWNER = ("v", "b")
URL = "https://s3.example/bucket/key"
HEADERS = {"x-amz-content-sha256": "0" * 64}


class Time:
    """A clock that moves only by waits."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    @property
    def clock(self) -> RetryClock:
        return RetryClock(lambda: self.seconds, self.sleep, lambda low, high: (low + high) / 2)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[SigningBroker]:
    with signing_broker(tmp_path / "broker", keys=key_ring(), owner=OWNER) as running:
        yield running


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def client(broker: SigningBroker, time: Time) -> Iterator[BrokerClient]:
    made = BrokerClient(broker.location(), broker.token_file, clock=time.clock)
    yield made
    made.close()


def sign(client: BrokerClient) -> object:
    return client.sign("GET", URL, HEADERS)


def test_signature_covers_method_url_and_headers(client: BrokerClient, broker: SigningBroker) -> None:
    signed = client.sign("PUT", URL, HEADERS | {"x-amz-storage-class": "STANDARD"})
    assert "x-amz-storage-class" in signed["Authorization"]
    [request] = broker.signed
    assert (request.method, request.url) == ("PUT", URL)


def test_authority_without_key_identifiers_is_trusted(
    monkeypatch: pytest.MonkeyPatch, broker: SigningBroker, time: Time
) -> None:
    """Python 3.13 demands them by default. The operator accepts such an authority, so movers must, too."""
    make = ssl.create_default_context

    def make_strict(**more: Any) -> ssl.SSLContext:
        context = make(**more)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", make_strict)
    with closing(BrokerClient(broker.location(), broker.token_file, clock=time.clock)) as client:
        sign(client)


def test_calls_share_a_connection_and_threads_do_not(client: BrokerClient, broker: SigningBroker) -> None:
    for _ in range(5):
        sign(client)
    assert broker.connections == 1
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(lambda _: sign(client), range(80)))) == 80
    assert broker.connections <= 8


def test_restarted_broker_is_reached_over_a_new_connection(client: BrokerClient, broker: SigningBroker) -> None:
    sign(client)
    broker.stop()
    broker.start()
    sign(client)
    assert broker.connections == 2


def test_token_is_read_again_for_each_call(client: BrokerClient, broker: SigningBroker) -> None:
    sign(client)
    broker.token = "another.token.of-the-pod"
    with pytest.raises(AccessDenied) as refused:
        sign(client)
    assert refused.value.reason == Reason.UNAUTHORIZED
    Path(broker.token_file).write_text(broker.token)
    sign(client)


@pytest.mark.parametrize("content", [None, b"", b"  \n", b"two\nlines", b"a b", b"\xff", b"x" * 20_000])
def test_missing_or_malformed_token_is_named_and_not_shown(
    client: BrokerClient, broker: SigningBroker, content: bytes | None
) -> None:
    if content is None:
        Path(broker.token_file).unlink()
    else:
        Path(broker.token_file).write_bytes(content)
    with pytest.raises(AccessDenied, match=broker.token_file) as caught:
        sign(client)
    assert "lines" not in str(caught.value)
    assert broker.connections == 0


FAULTS: dict[str, tuple[Fault, type[CinderblockError], str]] = {
    "not granted": (refuse(Reason.NOT_GRANTED), AccessDenied, "NotGranted"),
    "not yet": (refuse(Reason.NOT_GRANTED, transient=True), StoreUnreachable, "NotGranted"),
    "a reason of another release": (refuse("StoreNotSoAllowed"), AccessDenied, "StoreNotSoAllowed"),
    "a wrong token": (refuse(Reason.UNAUTHORIZED, status=401), AccessDenied, "Unauthorized"),
    "a wrong request": (refuse(Reason.INVALID_INPUT, status=400), InvalidInput, "InvalidInput"),
    "no store": (refuse("ClusterStoreNotFound", status=404), PermanentError, "ClusterStoreNotFound"),
    "no key": (refuse(Reason.KEY_UNAVAILABLE, status=409), KeyUnavailable, "KeyUnavailable"),
    "read-only keys": (refuse(Reason.READ_ONLY_KEY, status=409), KeyUnavailable, "ReadOnlyKey"),
    "too late": (refuse(Reason.SEALED_TOO_LATE, status=409), SealedTooLate, "SealedTooLate"),
    "a wrong key": (refuse(Reason.INTEGRITY_ERROR, status=409), IntegrityError, "IntegrityError"),
    "too many": (refuse(Reason.THROTTLED, status=429, transient=True), StoreThrottled, "Throttled"),
    "away": (refuse(Reason.BROKER_UNAVAILABLE, status=503, transient=True), StoreUnreachable, "BrokerUnavailable"),
    "no API server": (refuse(Reason.KUBE_UNAVAILABLE, status=503, transient=True), StoreUnreachable, "KubeUnavailable"),
    "a web page": (reply(b"<html>404</html>", 404), StoreUnreachable, "BrokerUnavailable"),
    "an empty answer": (reply(b"", 503), StoreUnreachable, "BrokerUnavailable"),
    "garbage": (reply(b"\xff\xfe{"), StoreUnreachable, "BrokerUnavailable"),
    "a list": (reply(b"[]"), StoreUnreachable, "BrokerUnavailable"),
    "another answer": (reply(b'{"headers": 5}'), StoreUnreachable, "BrokerUnavailable"),
    "a huge answer": (reply(b" " * (1 << 20)), StoreUnreachable, "BrokerUnavailable"),
    "a huge fault": (reply(json.dumps({"reason": "x" * 70_000}).encode(), 403), StoreUnreachable, "BrokerUnavailable"),
    "a closed connection": (hang_up, StoreUnreachable, "BrokerUnavailable"),
    "half an answer": (break_off, StoreUnreachable, "BrokerUnavailable"),
}


@pytest.mark.parametrize(("fault", "kind", "reason"), FAULTS.values(), ids=FAULTS)
def test_fault_becomes_an_error_of_the_tree(
    client: BrokerClient, broker: SigningBroker, fault: Fault, kind: type[CinderblockError], reason: str
) -> None:
    broker.always = fault
    with pytest.raises(CinderblockError) as caught:
        sign(client)
    error = caught.value
    assert type(error) is kind
    assert error.reason == reason
    text = "".join(traceback.format_exception(error))
    assert TOKEN not in text
    broker.always = None
    sign(client)


def test_answer_that_never_ends_ends_at_the_deadline(
    client: BrokerClient, broker: SigningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CALL_SECONDS", 0.3)
    broker.faults = [trickle]
    with pytest.raises(StoreTooSlow) as caught:
        sign(client)
    assert caught.value.reason == Reason.BROKER_UNAVAILABLE
    broker.faults = [trickle]
    monkeypatch.setattr(transport, "CALL_SECONDS", 60.0)
    with pytest.raises(StoreTooSlow), limit_seconds(0.3):
        sign(client)


def test_broker_that_is_away_is_named(client: BrokerClient, broker: SigningBroker) -> None:
    broker.stop()
    with pytest.raises(StoreUnreachable, match=f"broker at https://localhost:{broker.port}") as caught:
        sign(client)
    assert caught.value.reason == Reason.BROKER_UNAVAILABLE


def test_other_authority_is_not_trusted(broker: SigningBroker) -> None:
    client = BrokerClient(broker.location(ca=Authority("broker").certificate), broker.token_file)
    with pytest.raises(StoreUnreachable) as caught:
        sign(client)
    assert caught.value.reason == Reason.CERTIFICATE_NOT_TRUSTED
    assert broker.signed == []


def test_other_host_is_not_trusted(broker: SigningBroker) -> None:
    location = broker.location().model_copy(update={"url": f"https://127.0.0.1:{broker.port}"})
    with pytest.raises(StoreUnreachable) as caught:
        sign(BrokerClient(location, broker.token_file))
    assert caught.value.reason == Reason.CERTIFICATE_NOT_TRUSTED


@pytest.mark.parametrize(
    "url", ["", "http://broker:80", "https://", "https://user@broker", "https://b:x", "https://b/?q"]
)
def test_location_without_a_proper_url_is_rejected(broker: SigningBroker, url: str) -> None:
    with pytest.raises(InvalidInput, match=r"broker\.enabled"):
        BrokerClient(broker.location().model_copy(update={"url": url}), broker.token_file)


@pytest.mark.parametrize("certificate", ["", " \n", "no certificate"])
def test_location_without_an_authority_trusts_nobody(broker: SigningBroker, certificate: str) -> None:
    location = BrokerLocation(
        url="https://broker", ca_certificate=certificate, access=MoverAccess.SIGNED_REQUESTS, encrypts=False
    )
    with pytest.raises(InvalidInput, match="CA"):
        BrokerClient(location, broker.token_file)


def test_request_that_is_too_long_is_not_sent(client: BrokerClient, broker: SigningBroker) -> None:
    with pytest.raises(InvalidInput, match="too long"):
        client.sign("GET", URL + "x" * 10_000, HEADERS)
    assert broker.connections == 0


def test_data_key_is_made_and_opened(client: BrokerClient, broker: SigningBroker) -> None:
    made = client.new_data_key()
    assert made.wrapped.key_id == key_ring().active
    assert client.unwrap(made.wrapped, OWNER, None).reveal() == made.data_key.reveal()
    with pytest.raises(IntegrityError):
        client.unwrap(made.wrapped, ("v", "other"), None)


ANSWERS: dict[str, Fault] = {
    "no base64": reply(b'{"dataKey": "=a", "wrapped": {"keyId": "k", "salt": "", "sealed": ""}}'),
    "a short key": reply(b'{"dataKey": "YWFh", "wrapped": {"keyId": "k", "salt": "", "sealed": ""}}'),
}


@pytest.mark.parametrize("fault", ANSWERS.values(), ids=ANSWERS)
def test_malformed_data_key_is_not_used(client: BrokerClient, broker: SigningBroker, fault: Fault) -> None:
    broker.always = fault
    with pytest.raises(StoreUnreachable, match="malformed"):
        client.new_data_key()


CALLS: dict[str, Callable[[BrokerClient], object]] = {
    "credentials": BrokerClient.credentials,
    "new data key": BrokerClient.new_data_key,
    "unwrap": lambda client: client.unwrap(key_ring().wrap(DataKey(b"d" * 32), OWNER), OWNER, datetime.now(UTC)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_call_survives_five_minutes_without_a_broker(
    client: BrokerClient, broker: SigningBroker, time: Time, call: Callable[[BrokerClient], object]
) -> None:
    away = refuse(Reason.BROKER_UNAVAILABLE, status=503, transient=True)

    def back_after_five_minutes(handler: object) -> None:
        if time.seconds > 300:
            broker.always = None
        away(handler)  # type: ignore[arg-type]

    broker.always = back_after_five_minutes
    assert call(client)
    assert time.seconds > 300


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_refused_call_is_not_repeated(
    client: BrokerClient, broker: SigningBroker, time: Time, call: Callable[[BrokerClient], object]
) -> None:
    broker.faults = [refuse(Reason.NOT_GRANTED)]
    with pytest.raises(AccessDenied):
        call(client)
    assert time.seconds == 0


def test_absent_broker_ends_a_call_after_its_time(client: BrokerClient, broker: SigningBroker, time: Time) -> None:
    broker.stop()
    with pytest.raises(StoreUnreachable, match=r"tried \d+ times in 3\d\d s"):
        client.new_data_key()
    assert time.seconds <= BROKERED_RETRIES.total


def test_representations_show_no_secret(client: BrokerClient, broker: SigningBroker) -> None:
    key = client.new_data_key()
    credentials = client.credentials()
    shown = f"{client!r} {key!r} {credentials!r} {vars(client)!r}"
    assert broker.credentials.secret_key not in shown
    assert TOKEN not in shown
    assert repr(key.data_key.reveal()) not in shown


def test_read_only_store_is_told_from_other_refusals(client: BrokerClient, broker: SigningBroker, time: Time) -> None:
    broker.faults = [refuse(Reason.STORE_READ_ONLY)]
    with pytest.raises(StoreReadOnly):
        client.new_data_key()
    assert time.seconds == 0
