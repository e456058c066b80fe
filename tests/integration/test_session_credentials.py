"""Session credentials by AssumeRoleWithWebIdentity, from versitygw's IAM service and an issuer of the test."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from cinderblock.api import layout
from cinderblock.api.broker import CREDENTIALS_PATH
from cinderblock.errors import AccessDenied, CinderblockError, StoreUnreachable
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SERVICE_ACCOUNT, TOKEN_REVIEW
from cinderblock.lifecycle.grant import POLICY_CHARACTERS, Grant, session_policy
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.signers import sts
from cinderblock.store.s3.signers.sts import SessionCredentials
from cinderblock.store.s3.store import S3Store
from tests.support.broker.attacks import PACK
from tests.support.broker.brokers import Broker, broker_before
from tests.support.broker.issuer import Issuer, issuer
from tests.support.broker.tenants import VOLUME, make_cluster_store, make_secrets, make_tenant, request_token
from tests.support.broker.token_service import AUDIENCE, ROLE, SUBJECT, TokenService, token_service

pytestmark = pytest.mark.integration

V, B, OTHER = VOLUME, "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
THEIRS = "prefix/bank/33333333-3333-4333-8333-333333333333"
PREFIXES = {
    "a statement for each permission": "prefix/shop/44444444-4444-4444-8444-444444444444",
    "the short policy": f"{'/'.join(['x' * 100] * 5)}/{'n' * 63}/44444444-4444-4444-8444-444444444444",
}


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Issuer]:
    """Run an issuer."""
    with issuer(tmp_path_factory.mktemp("issuer")) as running:
        yield running


@pytest.fixture(scope="module")
def service(trusted: Issuer) -> Iterator[TokenService]:
    """Run an S3 server with a token service, and one bucket."""
    with token_service(trusted) as running:
        S3Store(running.location("bucket", create_container=True), running.credentials).check()
        yield running


def assume(service: TokenService, token: str, policy: str, role: str = "", seconds: int = 900) -> SessionCredentials:
    return sts.assume_role(
        endpoint_url=service.sts_url,
        region="us-east-1",
        ca_file=None,
        role_arn=role or service.role_arn,
        session_name="cinderblock-test",
        token=token,
        policy=policy,
        seconds=seconds,
    )


def store_with(service: TokenService, credentials: S3Credentials, prefix: str = "") -> S3Store:
    return S3Store(service.location("bucket", prefix=prefix), credentials)


def is_refused(store: S3Store, method: str, key: str) -> bool:
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: store.get(key),
        "put": lambda: store.put(key, b"x"),
        "delete": lambda: store._client.delete_object(Bucket="bucket", Key=key),
        "list": lambda: list(store.list(key)),
    }
    try:
        calls[method]()
    except (AccessDenied, ClientError) as error:
        return isinstance(error, AccessDenied) or error.response["Error"]["Code"] == "AccessDenied"
    return False


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=PREFIXES)
def test_session_of_a_backup_does_what_the_grant_permits(service: TokenService, trusted: Issuer, prefix: str) -> None:
    root = store_with(service, service.credentials)
    others = f"{layout.pack_prefix(prefix, V, OTHER)}{PACK}"
    theirs = f"{layout.pack_prefix(THEIRS, V, B)}{PACK}"
    for key in (others, theirs):
        root.put(key, b"stored")
    policy = session_policy(Grant("bucket", prefix, V, B), "bucket")
    assert len(policy) < POLICY_CHARACTERS
    made = assume(service, trusted.token(SUBJECT, AUDIENCE), policy)
    assert timedelta(minutes=10) < made.expires_at - datetime.now(UTC) < timedelta(minutes=16)
    with closing(store_with(service, made.credentials, prefix)) as store:
        store.check()
        own, manifest = f"{layout.pack_prefix(prefix, V, B)}{PACK}", layout.manifest_key(prefix, V, B)
        for key in (own, manifest):
            store.put(key, b"own")
            assert store.get(key) == b"own"
        assert store.get(others) == b"stored"
        assert [info.key for info in store.list(layout.pack_prefix(prefix, V, B))] == [own]
        store._client.delete_object(Bucket="bucket", Key=own)
        refused = [
            ("put", others),
            ("delete", others),
            ("put", layout.manifest_key(prefix, V, OTHER)),
            ("get", f"{layout.pack_prefix(prefix, OTHER, B)}{PACK}"),
            ("put", f"{layout.pack_prefix(prefix, OTHER, B)}{PACK}"),
            *((method, theirs) for method in ("get", "put", "delete")),
            ("list", f"{THEIRS}/"),
            ("list", ""),
            ("put", "x"),
        ]
        assert [attempt for attempt in refused if not is_refused(store, *attempt)] == []
    assert root.get(theirs) == b"stored"


def test_session_of_a_restore_writes_nothing(service: TokenService, trusted: Issuer) -> None:
    prefix = PREFIXES["a statement for each permission"]
    key = f"{layout.pack_prefix(prefix, V, OTHER)}{PACK}"
    store_with(service, service.credentials).put(key, b"stored")
    made = assume(service, trusted.token(SUBJECT, AUDIENCE), session_policy(Grant("bucket", prefix, V), "bucket"))
    with closing(store_with(service, made.credentials, prefix)) as store:
        assert store.get(key) == b"stored"
        assert is_refused(store, "put", key)
        assert is_refused(store, "delete", key)


def test_refusals_of_the_service_do_not_show_the_token(service: TokenService, trusted: Issuer) -> None:
    policy = session_policy(Grant("bucket", THEIRS, V), "bucket")
    tokens = {
        "another subject": trusted.token("system:serviceaccount:shop:default", AUDIENCE),
        "another audience": trusted.token(SUBJECT, "another"),
        "expired": trusted.token(SUBJECT, AUDIENCE, exp=1),
        "forged": trusted.token(SUBJECT, AUDIENCE)[:-6] + "AAAAAA",
        "no token": "none",
    }
    for token in tokens.values():
        with pytest.raises(AccessDenied) as refused:
            assume(service, token, policy)
        assert token not in refused.value.message.split()
        assert ROLE in refused.value.message
    good = trusted.token(SUBJECT, AUDIENCE)
    with pytest.raises(CinderblockError):
        assume(service, good, policy, role=service.role_arn + "-x")
    with pytest.raises(CinderblockError):
        assume(service, good, "{}")


def test_service_that_does_not_answer_is_a_transient_failure(service: TokenService, trusted: Issuer) -> None:
    gone = TokenService(service.url, "http://127.0.0.1:9", service.role_arn, service.credentials)
    with pytest.raises(StoreUnreachable):
        assume(gone, trusted.token(SUBJECT, AUDIENCE), "{}")


@pytest.fixture
async def broker(
    kubeconfig: Path, client: KubeClient, service: TokenService, trusted: Issuer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Broker]:
    """Run a broker whose tokens for the service come from the issuer of the test: the API server's is not reachable."""
    system = f"system-{uuid.uuid4().hex[:8]}"
    await make_secrets(client, system, service.credentials.access_key, service.credentials.secret_key)
    session = {
        "roleArn": service.role_arn,
        "endpointUrl": service.sts_url,
        "audience": AUDIENCE,
        "durationSeconds": 900,
    }
    access = {"mode": "SessionCredentials", "sessionCredentials": session}
    await make_cluster_store(client, service.url, moverAccess=access)

    async def create_token(_: KubeClient, namespace: str, account: str, audience: str, seconds: int) -> str:
        assert (namespace, account, audience, seconds) == (system, "broker", AUDIENCE, 3600)
        return trusted.token(SUBJECT, audience)

    monkeypatch.setattr(KubeClient, "create_token", create_token)
    async with broker_before(str(kubeconfig), system) as running:
        yield running


async def test_mover_gets_credentials_for_its_operation_alone(
    broker: Broker, client: KubeClient, service: TokenService
) -> None:
    shop, bank = await make_tenant(client), await make_tenant(client)
    made = {}
    for tenant in (shop, bank):
        mover = await tenant.backup()
        answer = await broker.ask(CREDENTIALS_PATH, {}, mover.token)
        assert answer.status == 200, answer.body
        assert (await broker.ask(CREDENTIALS_PATH, {}, mover.token)).json == answer.json
        found = answer.json
        credentials = S3Credentials(found["accessKeyId"], found["secretAccessKey"], found["sessionToken"])
        key = f"{tenant.prefix}/packs/{VOLUME}/{mover.uid}/{PACK}"
        made[tenant.namespace] = store_with(service, credentials, tenant.prefix), key
    for tenant, other in ((shop, bank), (bank, shop)):
        store, own = made[tenant.namespace]
        store.put(own, b"own")
        theirs = made[other.namespace][1]
        assert is_refused(store, "get", theirs)
        assert is_refused(store, "put", theirs)
        assert is_refused(store, "list", f"{other.prefix}/")


async def test_api_server_makes_tokens_of_the_brokers_account(client: KubeClient, namespace: str) -> None:
    await client.create(SERVICE_ACCOUNT, {"metadata": {"name": "broker", "namespace": namespace}})
    token = await client.create_token(namespace, "broker", AUDIENCE, 3600)
    review = await client.create_review(TOKEN_REVIEW, {"token": token, "audiences": [AUDIENCE]})
    assert review["user"]["username"] == f"system:serviceaccount:{namespace}:broker"


async def refusal(kubeconfig: Path, client: KubeClient, service: TokenService, **session: object) -> tuple[int, str]:
    """Return status and message of the broker for a store with these sessionCredentials."""
    system = f"system-{uuid.uuid4().hex[:8]}"
    await make_secrets(client, system, service.credentials.access_key, service.credentials.secret_key)
    known = {"roleArn": service.role_arn, "endpointUrl": service.sts_url, "audience": AUDIENCE, "durationSeconds": 900}
    access = {"mode": "SessionCredentials", "sessionCredentials": known | session}
    await make_cluster_store(client, service.url, moverAccess=access)
    mover = await (await make_tenant(client)).backup()
    async with broker_before(str(kubeconfig), system) as broker:
        answer = await broker.ask(CREDENTIALS_PATH, {}, mover.token)
    return answer.status, str(answer.json["message"])


async def test_tenants_read_nothing_of_the_token_service(
    kubeconfig: Path, client: KubeClient, service: TokenService, caplog: pytest.LogCaptureFixture
) -> None:
    """The token of the test's API server has an issuer that the service does not trust."""
    _, message = await refusal(kubeconfig, client, service)
    assert service.role_arn not in message
    assert service.sts_url not in message
    assert "log of the broker" in message
    [record] = [record for record in caplog.records if "no session credentials" in record.getMessage()]
    assert service.role_arn in record.__dict__["cause"]


async def test_audiences_of_others_are_refused(kubeconfig: Path, client: KubeClient, service: TokenService) -> None:
    """With such a token, the token service could act as the broker."""
    tenant = await make_tenant(client)
    own = await request_token(client, tenant.namespace, "default", {"expirationSeconds": 600})
    claims = own.split(".")[1]
    [audience, *_] = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["aud"]
    for refused, text in ((audience, "API server accepts"), ("cinderblock-broker", "that of the broker")):
        status, message = await refusal(kubeconfig, client, service, audience=refused)
        assert (status, text in message) == (400, True), message


async def test_token_of_the_broker_needs_tls_outside_the_cluster(
    kubeconfig: Path, client: KubeClient, service: TokenService
) -> None:
    status, message = await refusal(kubeconfig, client, service, endpointUrl="http://sts.example.com")
    assert (status, "https" in message) == (400, True), message
