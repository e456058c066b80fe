"""One tenant's token against another tenant's objects, and against its own beyond the grant. Nothing may succeed."""

from __future__ import annotations

import asyncio
import ssl
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from cinderblock.api.broker import CREDENTIALS_PATH, NEW_DATA_KEY_PATH, SIGN_PATH, UNWRAP_PATH
from cinderblock.api.labels import OWNER_KIND_LABEL, OWNER_NAME_ANNOTATION, OWNER_UID_LABEL, child_name
from cinderblock.broker.settings import BrokerSettings
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server, s3_server
from tests.support.broker import attacks
from tests.support.broker.attacks import PACK, Target
from tests.support.broker.brokers import EMPTY_HASH, Answer, Broker, broker_before, raw_answer
from tests.support.broker.tenants import (
    CLUSTER_STORE,
    VOLUME,
    Mover,
    Tenant,
    job_reference,
    make_cluster_store,
    make_secrets,
    make_tenant,
)

pytestmark = pytest.mark.integration

LEAST_ATTEMPTS = 200
"""Each of these is another way in."""


@dataclass
class Scene:
    """Two tenants, the attacker's mover and what the victim has stored."""

    broker: Broker
    server: S3Server
    store: S3Store
    attacker: Tenant
    victim: Tenant
    mover: Mover
    target: Target
    secrets: tuple[bytes, ...]
    count: int = 0
    broken: list[str] = field(default_factory=list)

    def judge(self, name: str, answer: Answer) -> None:
        """Count an attempt. It must be refused by a fault that has a reason and no secret."""
        self.count += 1
        try:
            fault = answer.json if answer.body else {}
        except ValueError:
            fault = {}
        is_clear = bool(fault.get("reason") and fault.get("message")) or answer.status in (204, 405) or name == "HEAD"
        leaks = any(secret in answer.body for secret in self.secrets)
        if answer.status < 400 or not is_clear or leaks or b"AWS4-HMAC" in answer.body:
            self.broken.append(f"{name}: {answer.status} {answer.body[:200]!r}")

    def judge_s3(self, name: str, answer: Answer) -> None:
        """Count an attempt at the S3 server, which must refuse it."""
        self.count += 1
        if answer.status < 400 or b"secret of the victim" in answer.body:
            self.broken.append(f"{name}: {answer.status} {answer.body[:200]!r}")


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    """Run an S3 server with two buckets."""
    with s3_server() as running:
        for bucket in ("bucket", "other"):
            S3Store(running.location(bucket, create_container=True), running.credentials).check()
        yield running


@pytest.fixture
async def scene(kubeconfig: Path, client: KubeClient, server: S3Server) -> AsyncIterator[Scene]:
    """Set up both tenants. The fixture checks at the end that the victim's objects are as before."""
    system = f"system-{uuid.uuid4().hex[:8]}"
    access, secret = server.credentials.access_key, server.credentials.secret_key
    keys = await make_secrets(client, system, access, secret)
    await make_cluster_store(client, server.url)
    attacker, victim = await make_tenant(client), await make_tenant(client)
    mover = await attacker.backup()
    stored = (await victim.available_backup())["metadata"]["uid"]
    target = Target(f"{server.url}/bucket", attacker.prefix, victim.prefix, VOLUME, mover.uid, stored)
    store = S3Store(server.location("bucket"), server.credentials)
    store.put(target.key, b"secret of the victim")
    before = [info.key for info in store.list("prefix/")]
    settings = BrokerSettings(host="127.0.0.1", port=0, header_seconds=2.0, body_seconds=1.0, handling_seconds=20.0)
    async with broker_before(str(kubeconfig), system, settings) as broker:
        secrets = (secret.encode(), *keys.values())
        scene = Scene(broker, server, store, attacker, victim, mover, target, secrets)
        assert (await broker.sign(mover.token, "PUT", target.own)).status == 200
        yield scene
    assert not scene.broken, "\n".join(scene.broken)
    assert store.get(target.key) == b"secret of the victim"
    assert [info.key for info in store.list("prefix/")] == before


async def test_no_request_beyond_the_grant_is_signed(scene: Scene) -> None:
    attempts = attacks.requests_to_sign(scene.target)
    for attempt in attempts:
        headers = {"x-amz-content-sha256": EMPTY_HASH} | attempt.headers
        body = {"method": attempt.method, "url": attempt.url, "headers": headers}
        answer = await scene.broker.ask(SIGN_PATH, body, scene.mover.token)
        scene.judge(f"{attempt.name}: {attempt.method} {attempt.url}", answer)
        if answer.status == 200:
            # The fixture then shows what it does to the objects of the victim.
            await scene.broker.deliver(attempt.method, attempt.url, b"", headers | answer.json["headers"])
    assert scene.count == len(attempts) >= LEAST_ATTEMPTS


async def test_malformed_and_hostile_requests_get_a_fault(scene: Scene) -> None:
    for name, body in attacks.malformed_bodies(scene.target):
        scene.judge(name, await scene.broker.ask(SIGN_PATH, body, scene.mover.token))
    for method, path in attacks.other_paths():
        answer = await scene.broker.ask(path, {}, scene.mover.token, method=method)
        scene.judge("HEAD" if method == "HEAD" else f"{method} {path}", answer)
    scene.judge("huge body", await scene.broker.ask(SIGN_PATH, b"x" * 200_000, scene.mover.token))
    assert scene.count >= 60


async def test_raw_bytes_never_get_a_signature(scene: Scene) -> None:
    for name, sent in attacks.raw_requests(scene.mover.token):
        answer = await raw_answer(scene.broker, sent)
        assert b" 200 " not in answer.split(b"\r\n")[0], name
        assert b"AWS4-HMAC" not in answer, name


async def test_slow_bodies_end_and_delay_nobody(scene: Scene) -> None:
    head = (
        f"POST {SIGN_PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {scene.mover.token}\r\n"
        "Content-Length: 1000\r\n\r\n{"
    ).encode()
    slow = [asyncio.create_task(raw_answer(scene.broker, head)) for _ in range(5)]
    other = await scene.victim.backup()
    own = f"{scene.target.bucket}/{scene.victim.prefix}/packs/{VOLUME}/{other.uid}/{PACK}"
    assert (await scene.broker.sign(other.token, "PUT", own)).status == 200
    for answer in await asyncio.gather(*slow):
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"RequestTimeout" in answer


async def test_changed_signed_requests_are_refused_by_the_server(scene: Scene) -> None:
    """versitygw refuses x-amz- headers that no signature covers, as AWS does."""
    broker, target, token = scene.broker, scene.target, scene.mover.token
    body = b"own content"
    signed = (await broker.sign(token, "PUT", target.own, {"Content-Type": "a/b"}, body)).json["headers"] | {
        "Content-Type": "a/b"
    }
    source = f"/bucket/{target.key}"
    added = {
        "x-amz-copy-source": source,
        "X-Amz-Copy-Source": quote(source),
        "x-amz-copy-source-range": "bytes=0-1",
        "x-amz-acl": "public-read",
        "x-amz-tagging": "a=b",
        "x-amz-meta-x": "y",
        "x-amz-storage-class": "GLACIER",
        "x-amz-object-lock-legal-hold": "ON",
        "x-amz-security-token": "x",
    }
    for name, value in added.items():
        scene.judge_s3(f"unsigned {name}", await broker.deliver("PUT", target.own, body, signed | {name: value}))
    for other in (b"", b"own contenT", b"own content and more"):
        scene.judge_s3("another body", await broker.deliver("PUT", target.own, other, signed))
    urls = (
        f"{target.bucket}/{target.key}",
        f"{target.own}2",
        f"{target.own}?acl",
        f"{target.own}?versionId=1",
        f"{target.own}?uploads",
        f"{target.own}?partNumber=1&uploadId=u",
        f"{target.own}/../../../../../{target.key}",
        target.own.replace("/bucket/", "/other/"),
    )
    for url in urls:
        scene.judge_s3(f"another URL {url}", await broker.deliver("PUT", url, body, signed))
    for method in ("GET", "DELETE", "POST", "HEAD"):
        scene.judge_s3(f"another method {method}", await broker.deliver(method, target.own, body, signed))
    for name, value in (
        ("X-Amz-Date", "20200101T000000Z"),
        ("Host", "other"),
        ("Content-Type", "c/d"),
        ("X-Amz-Content-SHA256", "UNSIGNED-PAYLOAD"),
    ):
        scene.judge_s3(f"changed {name}", await broker.deliver("PUT", target.own, body, signed | {name: value}))
    for part in ("s3", "us-east-1", "aws4_request"):
        changed = signed | {
            "Authorization": signed["Authorization"].replace(f"/{part}/", "/x/").replace(f"/{part},", "/x,")
        }
        scene.judge_s3(f"another scope than {part}", await broker.deliver("PUT", target.own, body, changed))
    assert scene.count >= 30


async def test_tokens_of_nobody_are_refused(scene: Scene) -> None:
    body = {"method": "GET", "url": scene.target.own, "headers": {"x-amz-content-sha256": EMPTY_HASH}}
    for name, token in attacks.forged_tokens(scene.mover.token):
        answer = await scene.broker.ask(SIGN_PATH, body, token)
        scene.judge(f"token: {name}", answer)
        assert answer.status == 401, name
    for scheme in ("Basic", "Token", "bearer:", ""):
        answer = await scene.broker.ask(SIGN_PATH, body, headers={"Authorization": f"{scheme} {scene.mover.token}"})
        scene.judge(f"scheme {scheme}", answer)
    scene.judge("no header", await scene.broker.ask(SIGN_PATH, body))
    assert scene.count >= 20


async def _try(scene: Scene, name: str, token: str, status: int = 403) -> None:
    for path in (SIGN_PATH, CREDENTIALS_PATH, NEW_DATA_KEY_PATH, UNWRAP_PATH):
        body = {"method": "GET", "url": scene.target.own, "headers": {"x-amz-content-sha256": EMPTY_HASH}}
        answer = await scene.broker.ask(path, body if path == SIGN_PATH else {}, token)
        scene.judge(f"{name} at {path}", answer)
        if answer.status != status:
            scene.broken.append(f"{name} at {path}: {answer.status} {answer.body!r}, and not {status}")


async def test_tokens_of_other_pods_and_audiences_are_refused(scene: Scene) -> None:
    tenant, mover = scene.attacker, scene.mover
    await _try(scene, "token without a pod", await tenant.token(None), 401)
    await _try(
        scene,
        "token for the API server",
        await tenant.token(mover.pod, mover.pod_uid, "https://kubernetes.default.svc"),
        401,
    )
    await _try(scene, "token for another audience", await tenant.token(mover.pod, mover.pod_uid, "vault"), 401)
    plain = await tenant.admin.create(
        kinds.POD,
        {
            "metadata": {"name": "plain", "namespace": tenant.namespace},
            "spec": {"serviceAccountName": "default", "containers": [{"name": "x", "image": "x"}]},
        },
    )
    await _try(scene, "pod without marks", await tenant.token("plain", plain["metadata"]["uid"]))


async def test_pods_that_only_look_like_movers_are_refused(scene: Scene) -> None:
    tenant, mover = scene.attacker, scene.mover
    foreign = await scene.victim.backup()
    job = child_name(mover.uid)
    own_job = await tenant.job("my-job")
    forged: dict[str, dict[str, Any]] = {
        "no owner": {"ownerReferences": []},
        "owner that does not control": {"ownerReferences": [job_reference(job, mover.job_uid, controller=False)]},
        "owner of another kind": {"ownerReferences": [job_reference(job, mover.job_uid, kind="CronJob")]},
        "owner of another group": {"ownerReferences": [job_reference(job, mover.job_uid, apiVersion="evil.io/v1")]},
        "Job of the attacker": {"ownerReferences": [job_reference("my-job", own_job)]},
        "Job of the attacker under the name of the mover": {"ownerReferences": [job_reference(job, own_job)]},
        "Job that does not exist": {"ownerReferences": [job_reference(job, str(uuid.uuid4()))]},
        "Job of the victim": {"ownerReferences": [job_reference(job, foreign.job_uid)]},
        "Job and operation of the victim": {
            "ownerReferences": [job_reference(child_name(foreign.uid), foreign.job_uid)],
            "labels": {OWNER_KIND_LABEL: "VolumeBackup", OWNER_UID_LABEL: foreign.uid},
            "annotations": {OWNER_NAME_ANNOTATION: foreign.owner["metadata"]["name"]},
        },
        "operation of another kind": {"labels": {OWNER_KIND_LABEL: "VolumeRestore", OWNER_UID_LABEL: mover.uid}},
        "kind that is no operation": {"labels": {OWNER_KIND_LABEL: "Secret", OWNER_UID_LABEL: mover.uid}},
        "no kind": {"labels": {OWNER_UID_LABEL: mover.uid}},
        "no operation": {"labels": {OWNER_KIND_LABEL: "VolumeBackup"}},
        "no name": {"annotations": {}},
        "name of a path": {"annotations": {OWNER_NAME_ANNOTATION: f"../../{scene.victim.namespace}/volumebackups/x"}},
        "name of dots": {"annotations": {OWNER_NAME_ANNOTATION: ".."}},
    }
    for name, metadata in forged.items():
        pod = await tenant.pod("VolumeBackup", mover.owner, mover.job_uid, **metadata)
        token = await tenant.token(pod["metadata"]["name"], pod["metadata"]["uid"])
        await _try(scene, f"pod with {name}", token)
    assert scene.count >= 60


async def test_ended_pods_and_operations_are_refused(scene: Scene) -> None:
    tenant = scene.attacker
    for phase in ("Succeeded", "Failed"):
        ended = await tenant.backup()
        await tenant.admin.merge_patch(
            kinds.POD, ended.pod, tenant.namespace, {"status": {"phase": phase}}, subresource="status"
        )
        await _try(scene, f"pod that has {phase}", ended.token)
    deleted = await tenant.backup()
    await tenant.admin.delete(kinds.POD, deleted.pod, tenant.namespace)
    await _try(scene, "pod that was deleted", deleted.token, 401)
    for phase in ("available", "error"):
        mover = await tenant.backup(phase=phase)
        await _try(scene, f"backup that is {phase}", mover.token)
    backup = await tenant.available_backup()
    for phase in ("available", "error_restoring"):
        await _try(scene, f"restore that is {phase}", (await tenant.restore(backup, phase=phase)).token)
    for phase in ("verified", "error"):
        await _try(scene, f"verification that is {phase}", (await tenant.verification(backup, phase=phase)).token)
    gone = await tenant.backup()
    await tenant.admin.delete(kinds.VOLUME_BACKUP, gone.owner["metadata"]["name"], tenant.namespace)
    await _try(scene, "backup that was deleted", gone.token)


async def test_forged_statuses_do_not_leave_the_namespace(scene: Scene) -> None:
    """A person who may write statuses chooses the volume, but only below the prefix of their own namespace."""
    tenant, target = scene.attacker, scene.target
    for volume in ("../..", f"../../{scene.victim.namespace}", "a/b", ".", "..", "*", "%2e%2e"):
        await _try(scene, f"volume {volume}", (await tenant.backup(volumeId=volume)).token)
    await _try(scene, "no volume", (await tenant.backup(volumeId=None)).token)
    await _try(scene, "another bucket", (await tenant.backup(container="other")).token)
    await _try(scene, "status of a copy", (await tenant.backup(id=str(uuid.uuid4()))).token)
    await _try(
        scene, "another Job", (await tenant.backup(mover={"uid": str(uuid.uuid4()), "storeName": CLUSTER_STORE})).token
    )
    await _try(
        scene, "store that does not exist", (await tenant.backup(mover={"uid": "x", "storeName": "missing"})).token
    )
    backup = await tenant.available_backup()
    for key in (
        f"{target.theirs}/backups/{VOLUME}/{target.victim}.manifest",
        "x",
        f"{target.mine}/backups/../x/y.manifest",
    ):
        forged = await tenant.set_status(kinds.VOLUME_BACKUP, backup, {"manifestKey": key})
        await _try(scene, f"manifest {key}", (await tenant.restore(forged)).token)
        await _try(scene, f"manifest {key}, verified", (await tenant.verification(forged)).token)
    await _try(scene, "check of a drill", (await tenant.verification(backup, "Restore")).token)
    other = await tenant.restore(backup, backupId=target.victim)
    await _try(scene, "backup of the victim", other.token)


async def test_data_keys_and_credentials_of_others_stay_closed(scene: Scene) -> None:
    victim = await scene.victim.backup()
    made = (await scene.broker.ask(NEW_DATA_KEY_PATH, {}, victim.token)).json
    for volume, backup in (
        (VOLUME, scene.mover.uid),
        ("another", victim.uid),
        (VOLUME, "x"),
        ("", ""),
        ("../..", victim.uid),
    ):
        request = {"volumeId": volume, "backupId": backup, "wrapped": made["wrapped"]}
        scene.judge(f"key of {volume} {backup}", await scene.broker.ask(UNWRAP_PATH, request, scene.mover.token))
    for wrapped in (
        made["wrapped"] | {"keyId": "none"},
        made["wrapped"] | {"salt": "x"},
        made["wrapped"] | {"sealed": ""},
        made["wrapped"] | {"keyId": "../credentials"},
        {"keyId": "2026", "salt": "", "sealed": ""},
    ):
        request = {"volumeId": VOLUME, "backupId": victim.uid, "wrapped": wrapped}
        scene.judge(f"wrapped {wrapped}", await scene.broker.ask(UNWRAP_PATH, request, scene.mover.token))
    scene.judge("session credentials", await scene.broker.ask(CREDENTIALS_PATH, {}, scene.mover.token))


async def test_plain_http_is_not_spoken(scene: Scene) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", scene.broker.port)
    writer.write(f"POST {SIGN_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    async with asyncio.timeout(30):
        answer = await reader.read(1000)
    writer.close()
    assert not answer.startswith(b"HTTP/")
    with pytest.raises(ssl.SSLCertVerificationError):
        await asyncio.open_connection("127.0.0.1", scene.broker.port, ssl=ssl.create_default_context())
