"""For how long the answer about a token counts, and what asks the API server nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from starlette.types import ASGIApp, Message

from cinderblock.api.broker import CREDENTIALS_PATH, SIGN_PATH, UNWRAP_PATH
from cinderblock.api.labels import OWNER_KIND_LABEL, OWNER_NAME_ANNOTATION, OWNER_UID_LABEL, child_name
from cinderblock.broker.access import Access
from cinderblock.broker.app import make_app
from cinderblock.broker.authenticator import (
    ACCESS_SECONDS,
    FRESH_SECONDS,
    REFUSAL_SECONDS,
    RETRY_SECONDS,
    Authenticator,
)
from cinderblock.broker.main import make_services
from cinderblock.broker.settings import BrokerSettings
from cinderblock.errors import AccessDenied, KubeUnavailable, TransientError
from cinderblock.observability.broker_metrics import BrokerMetrics
from cinderblock.reasons import Reason
from tests.support.cluster.kube_clients import client_of
from tests.support.store.scripted_http import Asked, Reply, ScriptedServer

REVIEW = "/apis/authentication.k8s.io/v1/tokenreviews"
UID = "11111111-1111-4111-8111-111111111111"
OURS = "/apis/cinderblock.io/v1alpha1"


def part(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def token(number: int = 0, **claims: Any) -> str:
    bound = claims.pop("bound", {"pod": {"name": "pod"}})
    body = {"aud": ["cinderblock-broker"], "kubernetes.io": bound, "n": number} | claims
    return f"{part({'alg': 'RS256'})}.{part(body)}.c2lnbmF0dXJl"


def bearer(number: int = 0, **claims: Any) -> str:
    return f"Bearer {token(number, **claims)}"


def review(**status: Any) -> dict[str, Any]:
    extra = {"authentication.kubernetes.io/pod-name": ["pod"], "authentication.kubernetes.io/pod-uid": ["pod-uid"]}
    user = {"username": "system:serviceaccount:shop:default", "extra": extra}
    return {"status": {"authenticated": True, "audiences": ["cinderblock-broker"], "user": user} | status}


OBJECTS: dict[str, dict[str, Any]] = {
    "/api/v1/namespaces/shop/pods/pod": {
        "metadata": {
            "uid": "pod-uid",
            "labels": {OWNER_KIND_LABEL: "VolumeBackup", OWNER_UID_LABEL: UID},
            "annotations": {OWNER_NAME_ANNOTATION: "daily"},
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": child_name(UID), "uid": "job", "controller": True}
            ],
        }
    },
    f"{OURS}/namespaces/shop/volumebackups/daily": {
        "metadata": {"name": "daily", "namespace": "shop", "uid": UID},
        "spec": {"volumeId": "data"},
        "status": {"id": UID, "phase": "creating", "volumeId": "v", "mover": {"uid": "job", "storeName": "shared"}},
    },
    f"{OURS}/namespaces/shop/backupstores/shared": {
        "metadata": {"name": "shared", "namespace": "shop"},
        "spec": {"clusterStoreRef": {"name": "shared"}},
    },
    "/api/v1/namespaces/shop": {"metadata": {"name": "shop", "uid": "ns-uid"}},
    f"{OURS}/clusterbackupstores/shared": {
        "metadata": {"name": "shared", "uid": "cluster"},
        "spec": {"credentialsSecretRef": {"name": "s"}, "allowedNamespaces": {"from": "All"}},
    },
}


@dataclass
class Api:
    """A scripted API server with one mover."""

    authenticator: Authenticator
    server: ScriptedServer
    clock: Clock

    def reviews(self) -> int:
        """Return how many tokens were reviewed."""
        return sum(asked.path == REVIEW for asked in self.server.asked)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def api(
    status: dict[str, Any] | None = None, more: dict[str, Reply] | None = None, **changed: Reply | None
) -> AsyncIterator[Api]:
    replies: dict[str, Reply | None] = {path: Reply(body=json.dumps(body)) for path, body in OBJECTS.items()}
    replies[REVIEW] = Reply(201, json.dumps(review() if status is None else status))
    replies |= more or {}
    replies |= {next(path for path in replies if path.endswith(f"/{name}")): reply for name, reply in changed.items()}

    def answer(asked: Asked) -> Reply:
        return replies.get(asked.path) or Reply(404, '{"kind": "Status"}')

    async with client_of(answer) as (client, server):
        clock = Clock()
        yield Api(Authenticator(client, "system", clock), server, clock)


async def test_mover_gets_what_its_operation_needs() -> None:
    async with api() as made:
        access = await made.authenticator.authenticate(bearer())
    assert access.grant.prefix == "shop/ns-uid"
    assert (access.grant.volume_id, access.grant.backup_id) == ("v", UID)
    assert (access.store.secrets_in, access.store.cluster_store) == ("system", "shared")


def with_spec(**spec: Any) -> Reply:
    body = OBJECTS[f"{OURS}/clusterbackupstores/shared"]
    return Reply(body=json.dumps(body | {"spec": body["spec"] | spec}))


def backup(**status: Any) -> Reply:
    body = OBJECTS[f"{OURS}/namespaces/shop/volumebackups/daily"]
    return Reply(body=json.dumps(body | {"status": body["status"] | status}))


PLACE = hashlib.sha256(b"region us-east-1\nvolumebackups").hexdigest()[:16]
CLUSTER = f"{OURS}/clusterbackupstores/shared"
NOBODY = {"from": "None"}
WRONG = {"from": "Selector", "selector": {"matchLabels": {"a": "??"}}}


@pytest.mark.parametrize("allowed", [NOBODY, WRONG])
async def test_operation_ends_after_its_permission_is_withdrawn(allowed: dict[str, Any]) -> None:
    cluster = with_spec(allowedNamespaces=allowed)
    async with api(more={CLUSTER: cluster}, daily=backup(storePlace=PLACE)) as made:
        access = await made.authenticator.authenticate(bearer())
    assert access.grant.prefix == "shop/ns-uid"


async def test_namespace_that_was_never_allowed_gets_nothing() -> None:
    cluster = with_spec(allowedNamespaces=NOBODY)
    async with api(more={CLUSTER: cluster}) as made:
        with pytest.raises(AccessDenied, match="does not allow namespace shop") as refused:
            await made.authenticator.authenticate(bearer())
    assert refused.value.reason == Reason.STORE_NOT_ALLOWED


@pytest.mark.parametrize("status", [{"storePlace": "another"}, {"manifestKey": "shop/earlier/backups/v/b.manifest"}])
async def test_backup_of_another_place_gets_nothing(status: dict[str, Any]) -> None:
    recorded = {"manifestKey": f"shop/ns-uid/backups/v/{UID}.manifest", "storePlace": PLACE}
    async with api(daily=backup(**recorded)) as made:
        await made.authenticator.authenticate(bearer())
    async with api(daily=backup(**recorded | status)) as made:
        with pytest.raises(AccessDenied) as refused:
            await made.authenticator.authenticate(bearer())
    assert refused.value.reason == Reason.MANIFEST_MISPLACED
    assert not refused.value.permanent, "somebody may change the store back, and the operator waits for that"


async def test_store_that_is_made_again_ends_no_mover() -> None:
    async with api(more={f"{OURS}/namespaces/shop/backupstores/shared": Reply(404)}) as made:
        with pytest.raises(AccessDenied, match="does not exist now") as refused:
            await made.authenticator.authenticate(bearer())
    assert not refused.value.permanent


async def test_place_of_a_living_namespace_is_refused_clearly() -> None:
    entry = {"namespace": "shop", "namespaceUID": "ns-uid", "name": "system", "uid": "system-uid"}
    cluster = with_spec(formerNamespaces=[entry])
    async with api(more={CLUSTER: cluster}) as made:
        access = await made.authenticator.authenticate(bearer())
    assert access.grant.prefix == "system/system-uid"
    living = Reply(body=json.dumps({"metadata": {"name": "system", "uid": "system-uid"}}))
    async with api(more={"/api/v1/namespaces/system": living, CLUSTER: cluster}) as made:
        with pytest.raises(AccessDenied, match="Ask an administrator") as refused:
            await made.authenticator.authenticate(bearer())
    assert refused.value.reason == Reason.FORMER_NAMESPACE_REFUSED


async def test_many_requests_with_one_token_cause_one_review() -> None:
    async with api() as made:
        await asyncio.gather(*(made.authenticator.authenticate(bearer()) for _ in range(50)))
        made.clock.now = ACCESS_SECONDS - 0.1
        await made.authenticator.authenticate(bearer())
        assert made.reviews() == 1
        made.clock.now = ACCESS_SECONDS
        await made.authenticator.authenticate(bearer())
        assert made.reviews() == 2


def end_pod(made: Api, **changes: Any) -> None:
    """Change the pod of the mover, while the token stays valid."""
    path, before = "/api/v1/namespaces/shop/pods/pod", made.server.script
    assert callable(before)
    body = OBJECTS[path]
    metadata = body["metadata"] | changes.pop("metadata", {})
    ended = Reply(body=json.dumps(body | {"metadata": metadata} | changes))
    made.server.script = lambda asked: ended if asked.path == path else before(asked)


ENDS: list[dict[str, Any]] = [
    {"status": {"phase": "Succeeded"}},
    {"metadata": {"deletionTimestamp": "2026-05-04T12:00:00Z"}},
    {"metadata": {"uid": "another"}},
]


@pytest.mark.parametrize("change", ENDS, ids=str)
async def test_fresh_check_sees_that_the_pod_has_ended(change: dict[str, Any]) -> None:
    async with api() as made:
        await made.authenticator.authenticate(bearer())
        end_pod(made, **change)
        made.clock.now = FRESH_SECONDS
        await made.authenticator.authenticate(bearer())
        with pytest.raises(AccessDenied) as refused:
            await made.authenticator.authenticate(bearer(), freshly=True)
        assert refused.value.reason == Reason.NOT_GRANTED
        with pytest.raises(AccessDenied):
            await made.authenticator.authenticate(bearer())


async def test_failed_fresh_check_ends_no_known_right() -> None:
    async with api() as made:
        await made.authenticator.authenticate(bearer())
        before, made.server.script = made.server.script, lambda asked: Reply(500)
        made.clock.now = FRESH_SECONDS
        with pytest.raises(KubeUnavailable):
            await made.authenticator.authenticate(bearer(), freshly=True)
        assert await made.authenticator.authenticate(bearer())
        made.server.script = before
        made.clock.now += RETRY_SECONDS
        assert await made.authenticator.authenticate(bearer(), freshly=True)


async def test_many_fresh_checks_of_one_token_cause_one_review_a_second() -> None:
    async with api() as made:
        for number in range(50):
            made.clock.now = number * FRESH_SECONDS / 25
            await made.authenticator.authenticate(bearer(), freshly=True)
        assert made.reviews() == 2


async def post(app: ASGIApp, path: str) -> int:
    """Send one request with the token, and return the status of the answer."""
    sent: list[Message] = []
    headers = [(b"authorization", bearer().encode()), (b"content-length", b"0")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "client": None}

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return int(sent[0]["status"])


async def test_only_session_credentials_need_a_fresh_check() -> None:
    settings = BrokerSettings()
    async with api() as made:
        services = replace(
            make_services(made.authenticator._kube, "system", settings), authenticator=made.authenticator
        )
        app = make_app(services, settings, BrokerMetrics())
        for path, reviews in ((SIGN_PATH, 1), (UNWRAP_PATH, 1), (CREDENTIALS_PATH, 2)):
            await post(app, path)
            made.clock.now += FRESH_SECONDS
            assert made.reviews() == reviews
        end_pod(made, status={"phase": "Failed"})
        assert await post(app, CREDENTIALS_PATH) == 403
        assert await post(app, SIGN_PATH) == 403


async def test_refusal_counts_for_a_short_time() -> None:
    async with api(review(authenticated=False)) as made:
        for now, reviews in ((0.0, 1), (REFUSAL_SECONDS - 0.1, 1), (REFUSAL_SECONDS, 2)):
            made.clock.now = now
            with pytest.raises(AccessDenied) as refused:
                await made.authenticator.authenticate(bearer())
            assert refused.value.reason is Reason.UNAUTHORIZED
            assert made.reviews() == reviews


async def test_failure_of_the_api_server_counts_for_a_second() -> None:
    async with api(tokenreviews=Reply(500)) as made:
        for now in (0.0, RETRY_SECONDS - 0.1, RETRY_SECONDS):
            made.clock.now = now
            with pytest.raises(KubeUnavailable):
                await made.authenticator.authenticate(bearer())
        assert made.reviews() == 2


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        f"Basic {token()}",
        token(),
        "Bearer a.b",
        "Bearer a.b.c",
        "Bearer a.b.c.d",
        f"Bearer {part({})}.{part([])}.x",
        bearer(aud="vault"),
        bearer(aud=["vault"]),
        bearer(aud=None),
        bearer(0, bound={}),
        bearer(0, bound="pod"),
        bearer(0, bound={"pod": "pod"}),
        f"Bearer {part({})}.{'W' * 8000}.x",
        f"Bearer {token()} x",
        f"Bearer {token()}\u00fc",
    ],
)
async def test_what_cannot_be_a_token_of_a_mover_asks_nobody(authorization: str) -> None:
    async with api() as made:
        with pytest.raises(AccessDenied) as refused:
            await made.authenticator.authenticate(authorization)
        assert refused.value.reason is Reason.UNAUTHORIZED
        assert not made.server.asked


@pytest.mark.parametrize(
    "status",
    [
        review(audiences=["https://kubernetes.default.svc"]),
        review(audiences=None),
        review(audiences=[]),
        review(user={"username": "system:serviceaccount:shop:default"}),
        review(user={"username": "alice", "extra": review()["status"]["user"]["extra"]}),
        review(user=None),
        {"status": {}},
        {},
    ],
)
async def test_review_must_name_audience_account_and_pod(status: dict[str, Any]) -> None:
    async with api(status) as made:
        with pytest.raises(AccessDenied) as refused:
            await made.authenticator.authenticate(bearer())
        assert refused.value.reason is Reason.UNAUTHORIZED


async def test_error_is_raised_anew_each_time() -> None:
    async with api(pod=None) as made:
        errors = []
        for _ in range(3):
            with pytest.raises(AccessDenied) as refused:
                await made.authenticator.authenticate(bearer())
            errors.append(refused.value)
        assert len({id(error) for error in errors}) == 3
        assert {error.message for error in errors} == {errors[0].message}


async def test_tokens_of_one_namespace_do_not_push_out_others() -> None:
    async with api(pod=None) as made:
        for number in range(300):
            with pytest.raises(AccessDenied):
                await made.authenticator.authenticate(bearer(number))
        assert len(made.authenticator._refusals) == 256


async def in_flight(made: Api, count: int) -> None:
    async with asyncio.timeout(10):
        while len(made.authenticator._running) != count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_flood_of_new_tokens_delays_no_known_one() -> None:
    """Anybody can send tokens that the API server must review. Here, it answers none of the new ones."""
    async with api() as made:
        known = made.authenticator
        await known.authenticate(bearer())
        for _ in range(8):
            await known._new_reviews.acquire()
        made.clock.now = ACCESS_SECONDS
        flood = [
            asyncio.create_task(known.authenticate(bearer(number), f"10.0.0.{number % 20}")) for number in range(1, 400)
        ]
        await in_flight(made, 128)
        assert (await known.authenticate(bearer())).operation == "VolumeBackup daily"
        for task in flood:
            task.cancel()
        results = await asyncio.gather(*flood, return_exceptions=True)
        refused = [error for error in results if isinstance(error, TransientError)]
        assert len(refused) == 399 - 128
        assert {error.reason for error in refused} == {Reason.BROKER_UNAVAILABLE}


async def test_one_address_has_a_share_of_the_lookups() -> None:
    async with api() as made:
        for _ in range(8):
            await made.authenticator._new_reviews.acquire()
        flood = [asyncio.create_task(made.authenticator.authenticate(bearer(number), "a")) for number in range(50)]
        other = asyncio.create_task(made.authenticator.authenticate(bearer(50), "b"))
        await in_flight(made, 17)
        made.authenticator._new_reviews.release()
        assert await other
        results = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(error, TransientError) for error in results) == 50 - 16


async def test_lookup_that_nobody_waits_for_is_dropped() -> None:
    async with api() as made:
        for _ in range(8):
            await made.authenticator._new_reviews.acquire()
        waiting = [asyncio.create_task(made.authenticator.authenticate(bearer(), "a")) for _ in range(2)]
        await in_flight(made, 1)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert len(made.authenticator._running) == 1
        waiting[1].cancel()
        await in_flight(made, 0)
        made.authenticator._new_reviews.release()
        assert await made.authenticator.authenticate(bearer(), "a")
        assert made.reviews() == 1


async def test_slow_requests_of_a_namespace_keep_no_place_of_other_tokens() -> None:
    """A tenant sends as many bodies as slowly as the broker lets them, and shows further tokens meanwhile."""
    settings = BrokerSettings()
    async with api() as made, AsyncExitStack() as slow:
        services = make_services(made.authenticator._kube, "system", settings)
        for _ in range(settings.requests_per_namespace):
            await slow.enter_async_context(services.turns.turn("shop"))
        async with asyncio.timeout(10):
            await services.authenticator.authenticate(bearer())


async def test_one_namespace_has_a_share_of_the_lookups() -> None:
    async with api() as made:
        known = made.authenticator
        for _ in range(8):
            await known._turns._running["shop"].acquire()
        flood = [
            asyncio.create_task(known.authenticate(bearer(number), f"10.0.0.{number % 20}")) for number in range(100)
        ]
        async with asyncio.timeout(10):
            while sum(task.done() for task in flood) < 100 - 32:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert len(known._running) == 32
        refused = [task.exception() for task in flood if task.done()]
        assert all(isinstance(error, TransientError) for error in refused)
        for _ in range(8):
            known._turns._running["shop"].release()
        results = await asyncio.gather(*flood, return_exceptions=True)
        assert sum(isinstance(result, Access) for result in results) == 32
