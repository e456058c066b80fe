"""The S3 store without credentials: a broker signs its requests, and a real server checks the signatures."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from cinderblock.errors import AccessDenied, ContainerNotFound, StoreUnreachable
from cinderblock.reasons import Reason
from cinderblock.store import retrying
from cinderblock.store.credentials import RemoteSigner, S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.retrying import RetryPolicy
from cinderblock.store.s3.signers.signing import RequestSigner
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server
from tests.support.store.aws.server import AwsStub
from tests.support.store.signing_broker import SigningBroker, hang_up, refuse, reply, signing_broker

pytestmark = pytest.mark.integration

MIB = 1 << 20
PREFIX = "shared/shop/uid"


@pytest.fixture
def broker(server: S3Server, tmp_path: Path) -> Iterator[SigningBroker]:
    with signing_broker(tmp_path / "broker", server.credentials) as running:
        yield running


@pytest.fixture
def container(server: S3Server) -> str:
    name = f"test-{uuid.uuid4().hex[:12]}"
    with closing(S3Store(server.location(name, create_container=True), server.credentials)) as store:
        store.check()
    return name


@pytest.fixture
def store(server: S3Server, broker: SigningBroker, container: str) -> Iterator[S3Store]:
    location = server.location(container, prefix=PREFIX, create_container=True)
    with closing(S3Store(location, RemoteSigner(broker.client().sign))) as opened:
        yield opened


def asked(broker: SigningBroker) -> list[str]:
    """Return method and target of the signed requests."""
    return [f"{request.method} {request.url.partition('/')[2].partition('/')[2]}" for request in broker.signed]


def test_each_request_is_signed_once(store: S3Store, broker: SigningBroker) -> None:
    store.put(f"{PREFIX}/pack", os.urandom(24 * MIB))
    store.get(f"{PREFIX}/pack", 10, 20)
    store.get(f"{PREFIX}/pack", -5)
    assert [line.split()[0] for line in asked(broker)] == ["PUT", "GET", "GET"]
    [put, *_] = broker.signed
    assert {"x-amz-content-sha256", "x-amz-checksum-sha256"} <= put.headers.keys()
    assert not {"host", "expect", "user-agent", "amz-sdk-request", "amz-sdk-invocation-id"} & put.headers.keys()
    assert broker.signed[1].headers["range"] == "bytes=10-29"


def test_check_lists_one_key_below_the_prefix(store: S3Store, broker: SigningBroker) -> None:
    store.check()
    [request] = broker.signed
    assert request.method == "GET"
    assert "max-keys=1" in request.url
    assert "prefix=shared%2Fshop%2Fuid%2F&" in request.url + "&"


def test_missing_container_is_never_created(server: S3Server, broker: SigningBroker) -> None:
    location = server.location(f"absent-{uuid.uuid4().hex[:12]}", create_container=True)
    with closing(S3Store(location, RemoteSigner(broker.client().sign))) as store, pytest.raises(ContainerNotFound):
        store.check()
    assert [line.split()[0] for line in asked(broker)] == ["GET"]


def test_objects_are_deleted_one_by_one(store: S3Store, broker: SigningBroker) -> None:
    keys = [f"{PREFIX}/{number}" for number in range(3)]
    for key in keys:
        store.put(key, b"x")
    broker.signed.clear()
    store.delete([*keys, f"{PREFIX}/absent"])
    assert sorted({line.split()[0] for line in asked(broker)}) == ["DELETE"]
    assert list(store.list("")) == []


def test_upload_in_parts_needs_no_listing_of_uploads(store: S3Store, broker: SigningBroker) -> None:
    """A broker may refuse the look for parts of an earlier upload. Everything else must continue."""
    body = os.urandom(MIB) * 100
    broker.faults = [refuse(Reason.NOT_GRANTED)]
    store.put(f"{PREFIX}/manifest", body)
    assert store.get(f"{PREFIX}/manifest") == body
    kinds = [line.split()[0] for line in asked(broker)]
    assert kinds == ["POST", "PUT", "PUT", "POST", "GET"]


def test_refused_upload_is_not_tried_with_other_checksums(store: S3Store, broker: SigningBroker) -> None:
    refusals = [refuse(Reason.NOT_GRANTED, "This pack is not yours."), refuse(Reason.NOT_GRANTED, "Asked again.")]
    broker.faults = refusals
    with pytest.raises(AccessDenied, match="not yours") as caught:
        store.put(f"{PREFIX}/pack", b"x")
    assert caught.value.reason == Reason.NOT_GRANTED
    assert len(refusals) == 1


def test_absent_broker_is_an_outage_of_the_store(server: S3Server, broker: SigningBroker, container: str) -> None:
    policy = RetryPolicy(attempts=5, first_delay=0.01)
    with closing(open_store(server.location(container), RemoteSigner(broker.client().sign), policy=policy)) as store:
        broker.faults = [hang_up, hang_up, reply(b"", 503), refuse("BrokerUnavailable", status=503, transient=True)]
        store.put("key", b"body")
        broker.stop()
        with pytest.raises(StoreUnreachable, match=r"broker.*tried 5 times") as caught:
            store.put("key", b"other")
        assert caught.value.reason == Reason.BROKER_UNAVAILABLE
        broker.start()
        assert store.get("key") == b"body"


def test_movers_with_a_broker_wait_longer(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    chosen: list[RetryPolicy] = []
    original = retrying.RetryingStore.__init__

    def note(self: retrying.RetryingStore, inner: S3Store, policy: RetryPolicy) -> None:
        chosen.append(policy)
        original(self, inner, policy)

    monkeypatch.setattr(retrying.RetryingStore, "__init__", note)
    for access in (RemoteSigner(lambda *_: {}), server.credentials):
        open_store(server.location("any"), access).close()
    assert chosen == [retrying.BROKERED_RETRIES, retrying.MOVER_RETRIES]


SIGNATURE = {"Authorization": "AWS4-HMAC-SHA256 x", "X-Amz-Date": "20260101T000000Z"}
WRONG: dict[str, Mapping[str, str]] = {
    "nothing": {},
    "no signature": {"X-Amz-Date": "20260101T000000Z"},
    "a copy": SIGNATURE | {"x-amz-copy-source": "other/key"},
    "another host": SIGNATURE | {"Host": "example.org"},
    "another body": SIGNATURE | {"X-Amz-Content-SHA256": "UNSIGNED-PAYLOAD"},
    "a line break": SIGNATURE | {"X-Amz-Security-Token": "a\r\nx-amz-copy-source: other/key"},
    "another alphabet": {"Authorization": "ÄWS"},
    "a long value": SIGNATURE | {"X-Amz-Security-Token": "x" * 10_000},
}


@pytest.mark.parametrize("headers", WRONG.values(), ids=WRONG)
def test_headers_that_are_no_signature_are_not_sent(stub: AwsStub, headers: Mapping[str, str]) -> None:
    stub.add_bucket("signed")
    before = len(stub.requests)
    opened = closing(S3Store(stub.location("signed"), RemoteSigner(lambda *_: headers)))
    with opened as store, pytest.raises(StoreUnreachable, match="do not sign") as caught:
        store.put("key", b"x")
    assert caught.value.reason == Reason.BROKER_UNAVAILABLE
    assert len(stub.requests) == before


def test_signature_of_another_request_is_denied(server: S3Server, broker: SigningBroker, container: str) -> None:
    """The server, and not the mover, must be the one that checks what a signature covers."""
    client = broker.client()

    def sign(method: str, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        return client.sign(method, url.replace("key", "other"), headers)

    with closing(S3Store(server.location(container), RemoteSigner(sign))) as store:
        with pytest.raises(StoreUnreachable) as caught:
            store.put("key", b"x")
        assert caught.value.reason == Reason.ACCESS_DENIED


def test_replaced_credentials_of_the_broker_are_waited_for(
    server: S3Server, broker: SigningBroker, container: str
) -> None:
    """The broker reads a rotated Secret within a minute. Until then, the server rejects its signatures."""
    client, wrong = broker.client(), [True, True, True]
    old = RequestSigner(S3Credentials("rotated", "away"), "us-east-1")

    def sign(method: str, url: str, headers: Mapping[str, str]) -> Mapping[str, str]:
        return old.sign(method, url, headers) if wrong and wrong.pop() else client.sign(method, url, headers)

    policy = RetryPolicy(attempts=5, first_delay=0.01)
    with closing(open_store(server.location(container), RemoteSigner(sign), policy=policy)) as store:
        store.put("key", b"x")
        assert not wrong
        assert store.get("key") == b"x"


def test_wrong_clock_of_the_broker_is_temporary(stub: AwsStub) -> None:
    stub.add_bucket("skewed")
    stub.refuse("PutObject", code="RequestTimeTooSkewed")
    try:
        signer = RemoteSigner(lambda *_: SIGNATURE)
        with (
            closing(S3Store(stub.location("skewed"), signer)) as store,
            pytest.raises(StoreUnreachable, match="clock of the broker") as caught,
        ):
            store.put("key", b"x")
        assert caught.value.reason == Reason.CLOCK_SKEWED
    finally:
        stub.refused.clear()


def test_ambient_credentials_are_never_used(server: S3Server, container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", server.credentials.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", server.credentials.secret_key)
    signer = RemoteSigner(lambda *_: SIGNATURE)
    with closing(S3Store(server.location(container), signer)) as store:
        with pytest.raises(StoreUnreachable) as caught:
            store.check()
        # The date of that signature is an old one.
        assert caught.value.reason == Reason.CLOCK_SKEWED


@pytest.mark.parametrize("key", ["a b/c+d~e=f", "a%20b", "x/(1)!'*,;:@&$?#[]", "q?delete&uploads", '"<>^`{|}\\'])
def test_keys_with_any_characters_are_signed(store: S3Store, key: str) -> None:
    store.put(key, b"x")
    assert store.get(key) == b"x"
    assert [item.key for item in store.list(key[:3])] == [key]
    store.delete([key])
