"""The Secret with the broker's certificate on a real API server: races, renewal, deletion, an administrator's own."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cinderblock.broker.settings import BrokerSettings
from cinderblock.broker.tls import certificates
from cinderblock.broker.tls.secret import TlsSecret
from cinderblock.errors import CinderblockError, Conflict, InvalidInput, NotFound
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import SECRET
from tests.support.broker.tenants import make_secret
from tests.support.cluster.certificates import Authority
from tests.support.cluster.chart import BROKER, of_kind, render

pytestmark = pytest.mark.integration

SETTINGS = BrokerSettings(host_names=("broker.system.svc", "localhost"))
GIVEN = BrokerSettings(makes_certificate=False, tls_secret="given")
NAME = SETTINGS.tls_secret


Replica = Callable[..., TlsSecret]


@pytest.fixture
def replica(client: KubeClient, namespace: str) -> Iterator[Replica]:
    """Return a function that makes the TLS part of a replica. All are closed with the test."""
    made: list[TlsSecret] = []

    def make(settings: BrokerSettings = SETTINGS, **more: Any) -> TlsSecret:
        made.append(TlsSecret(client, namespace, settings, **more))
        return made[-1]

    yield make
    for tls in made:
        tls.close()


async def stored(client: KubeClient, namespace: str, name: str = NAME) -> dict[str, bytes]:
    body = await client.get(SECRET, name, namespace)
    assert body is not None
    return {key: base64.b64decode(value) for key, value in body["data"].items()}


def served(tls: TlsSecret) -> bytes:
    return Path(tls.file).read_bytes()


async def test_first_replica_makes_an_authority_and_a_certificate(
    replica: Replica, client: KubeClient, namespace: str
) -> None:
    expiries: list[float] = []
    tls = replica(on_expiry=expiries.append)
    assert not tls.is_ready
    await tls.refresh()
    data = await stored(client, namespace)
    assert set(data) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}
    assert data["tls.crt"] in served(tls)
    assert tls.is_ready
    assert abs(expiries[0] - (datetime.now(UTC) + timedelta(days=90)).timestamp()) < 60
    await tls.refresh()
    assert await stored(client, namespace) == data


async def test_empty_secret_of_the_chart_is_filled(replica: Replica, client: KubeClient, namespace: str) -> None:
    [secret] = [item for item in of_kind(render(*BROKER), "Secret") if item["metadata"]["name"].endswith("broker-tls")]
    body = secret | {"metadata": secret["metadata"] | {"name": NAME, "namespace": namespace}}
    await client.create(SECRET, body)
    tls = replica()
    await tls.refresh()
    assert tls.is_ready
    assert set(await stored(client, namespace)) == {"ca.crt", "ca.key", "tls.crt", "tls.key"}


async def test_replicas_that_start_together_share_one_certificate(
    replica: Replica, client: KubeClient, namespace: str
) -> None:
    replicas = [replica() for _ in range(6)]
    await asyncio.gather(*(tls.refresh() for tls in replicas))
    data = await stored(client, namespace)
    for tls in replicas:
        await tls.refresh()
        assert served(tls) == data["tls.key"].rstrip() + b"\n" + data["tls.crt"]


async def test_certificate_is_renewed_by_the_same_authority(
    replica: Replica, client: KubeClient, namespace: str
) -> None:
    now = datetime.now(UTC)
    running = replica()
    await running.refresh()
    before, first = await stored(client, namespace), served(running)
    later = [replica(clock=lambda: now + timedelta(days=61)) for _ in range(2)]
    await asyncio.gather(*(tls.refresh() for tls in later))
    after = await stored(client, namespace)
    assert (after["ca.crt"], after["ca.key"]) == (before["ca.crt"], before["ca.key"])
    assert after["tls.crt"] != before["tls.crt"]
    await running.refresh()
    assert served(running) != first
    assert after["tls.crt"] in served(running)


async def test_deleted_secret_comes_back_with_the_same_authority(
    replica: Replica, client: KubeClient, namespace: str
) -> None:
    tls = replica()
    await tls.refresh()
    before = await stored(client, namespace)
    await client.delete(SECRET, NAME, namespace)
    await tls.refresh()
    assert (await stored(client, namespace))["ca.crt"] == before["ca.crt"]


async def test_damaged_secret_is_repaired(replica: Replica, client: KubeClient, namespace: str) -> None:
    tls = replica()
    await tls.refresh()
    before = await stored(client, namespace)
    for key in ("tls.crt", "tls.key", "ca.crt", "ca.key"):
        await client.merge_patch(SECRET, NAME, namespace, {"data": {key: base64.b64encode(b"damaged").decode()}})
        await tls.refresh()
        repaired = await stored(client, namespace)
        assert repaired["ca.crt"] == before["ca.crt"]
        now = datetime.now(UTC)
        identity = certificates.Identity(repaired["tls.crt"], repaired["tls.key"])
        assert certificates.certificate_is_usable(identity, repaired["ca.crt"], SETTINGS.host_names, now)


async def test_secret_of_somebody_else_is_left_alone(replica: Replica, client: KubeClient, namespace: str) -> None:
    await make_secret(client, namespace, NAME, {"tls.crt": b"theirs"})
    with pytest.raises(Conflict, match=r"broker\.tls\.secretName"):
        await replica().refresh()
    assert await stored(client, namespace) == {"tls.crt": b"theirs"}


async def test_certificate_of_an_administrator_is_used_and_followed(
    replica: Replica, client: KubeClient, namespace: str
) -> None:
    tls = replica(GIVEN)
    with pytest.raises(NotFound, match="create it"):
        await tls.refresh()
    authority = Authority("theirs")
    identity = authority.sign("localhost")
    await make_secret(client, namespace, "given", {"tls.crt": identity.certificate, "tls.key": identity.key})
    with pytest.raises(InvalidInput, match=r"ca\.crt"):
        await tls.refresh()
    patch = {"data": {"ca.crt": base64.b64encode(authority.certificate).decode()}}
    await client.merge_patch(SECRET, "given", namespace, patch)
    await tls.refresh()
    assert identity.certificate in served(tls)
    renewed = authority.sign("localhost")
    changed = {"tls.crt": renewed.certificate, "tls.key": renewed.key}
    encoded = {key: base64.b64encode(value).decode() for key, value in changed.items()}
    await client.merge_patch(SECRET, "given", namespace, {"data": encoded})
    await tls.refresh()
    assert renewed.certificate in served(tls)


async def test_failure_leaves_the_certificate_in_use(replica: Replica, client: KubeClient, namespace: str) -> None:
    tls = replica()
    await tls.refresh()
    before = served(tls)
    await client.delete(SECRET, NAME, namespace)
    await make_secret(client, namespace, NAME, {"tls.crt": b"theirs"})
    assert not await tls.try_refresh()
    assert served(tls) == before


async def test_process_that_dies_after_the_write_leaves_a_usable_secret(
    replica: Replica, client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = replica()

    def die(identity: certificates.Identity) -> None:
        raise CinderblockError("died")

    monkeypatch.setattr(dying, "_write", die)
    with pytest.raises(CinderblockError, match="died"):
        await dying.refresh()
    data = await stored(client, namespace)
    other = replica()
    await other.refresh()
    assert await stored(client, namespace) == data


async def test_writer_gives_up_if_others_win_each_time(
    replica: Replica, client: KubeClient, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def lose(*_: object) -> None:
        raise Conflict("changed")

    tls = replica()
    monkeypatch.setattr(tls, "_put", lose)
    with pytest.raises(Conflict, match="others keep changing it"):
        await tls.refresh()
