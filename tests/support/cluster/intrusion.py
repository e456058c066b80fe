"""Somebody with everything that is in the pod of a mover, who wants what belongs to another namespace."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from itertools import chain
from typing import Any

from cinderblock.api.mover import SECRETS_DIRECTORY, TASK_VARIABLE
from cinderblock.format.crypto.keyring import WrappedKey
from tests.support.cluster.cluster import RELEASE_NAMESPACE
from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.recorder import OWNER_LABEL
from tests.support.cluster.workloads import OneShotPod

Attempt = dict[str, Any]

POD = "intruder"
API_TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount/token"
"""A pod's token for the API server."""
_STEAL = (
    f"import json, os; print(json.dumps({{'task': os.environ['{TASK_VARIABLE}'],"
    f" 'token': open('{SECRETS_DIRECTORY}/broker/token').read(), 'files': sorted(os.listdir('{SECRETS_DIRECTORY}'))}}))"
)


@dataclass(frozen=True)
class Loot:
    """Everything of interest in the pod of a mover.

    Attributes:
        task: the task.
        token: for the broker.
        files: names in the directory of Secrets.
    """

    task: dict[str, Any]
    token: str
    files: list[str]


@dataclass(frozen=True)
class Place:
    """The objects of a namespace.

    Attributes:
        prefix: of its keys, without a slash at its end.
        volume_id: a volume of it.
        manifest: key of the manifest of a backup of the volume.
        pack: key of a pack of that backup.
        wrapped: the wrapped data key of the backup.
    """

    prefix: str
    volume_id: str
    manifest: str
    pack: str
    wrapped: WrappedKey


def start_intruder(tenant: Tenant) -> None:
    """Start a pod of the tenant that waits for orders."""
    pod = OneShotPod(POD, ("sleep", "600"))
    tenant.kube.apply(pod.manifest(tenant.kube, tenant.name))


def steal(tenant: Tenant, operation_uid: str) -> Loot:
    """Wait until the mover of an operation runs, and take everything from its pod."""
    pods = (
        "get",
        "pods",
        "-l",
        f"{OWNER_LABEL}={operation_uid}",
        "--field-selector=status.phase=Running",
        "-o",
        "name",
    )
    name = tenant.wait_until("running mover", lambda: tenant.kubectl(*pods).split())[0]
    found = json.loads(tenant.kubectl("exec", name, "--", "python3", "-c", _STEAL))
    return Loot(json.loads(found["task"]), found["token"], found["files"])


def intrude(tenant: Tenant, loot: Loot, *lists: list[Attempt]) -> list[dict[str, dict[str, Any]]]:
    """Carry out attempts in the tenant's own pod, and return for each list the results by name."""
    order = {"broker": loot.task["broker"], "token": loot.token, "attempts": [*chain.from_iterable(lists)]}
    program = ("exec", "-i", POD, "--", "python3", "/tools/intruder.py")
    printed = tenant.kubectl(*program, stdin=json.dumps(order))
    results = {result["name"]: result for result in json.loads(printed)}
    return [{attempt["name"]: results[attempt["name"]] for attempt in attempts} for attempts in lists]


def was_refused(result: dict[str, Any]) -> bool:
    """Return whether the broker, or else the other server, refused an attempt."""
    by_broker = result["broker"] in (400, 401, 403, 404, 409)
    return by_broker or (result["broker"] in (200, None) and result["status"] in (400, 401, 403))


def permitted(bucket: str, own: Place) -> list[Attempt]:
    """Return what the mover of a new backup may do."""
    return [
        _object("read an own manifest", "GET", bucket, own.manifest),
        _object("read an own pack", "GET", bucket, own.pack),
        _listing("list the own packs", bucket, f"{own.prefix}/packs/{own.volume_id}/"),
        _unwrap("open an own data key", own.volume_id, own.manifest, own.wrapped),
    ]


def attempts_on(bucket: str, own: Place, other: Place) -> list[Attempt]:
    """Return what the mover of a new backup must not be able to do.

    Args:
        bucket: URL of the bucket.
        own: an earlier backup of the mover's volume.
        other: a backup of another namespace.
    """
    copy = {"x-amz-copy-source": f"/{bucket.rpartition('/')[2]}/{other.pack}"}
    return [
        *_on_objects(bucket, own, other, copy),
        *_on_signatures(bucket, own, other, copy),
        *_on_tokens(bucket, own),
    ]


def _on_objects(bucket: str, own: Place, other: Place, copy: dict[str, str]) -> list[Attempt]:
    server, _, container = bucket.rpartition("/")
    return [
        _object("read their pack", "GET", bucket, other.pack),
        _object("ask for their manifest", "HEAD", bucket, other.manifest),
        _object("overwrite their manifest", "PUT", bucket, other.manifest),
        _object("delete their pack", "DELETE", bucket, other.pack),
        _listing("list their packs", bucket, f"{other.prefix}/packs/"),
        _listing("list all namespaces", bucket, f"{other.prefix.partition('/')[0]}/"),
        {"name": "list the bucket", "method": "GET", "url": f"{bucket}?list-type=2"},
        _object("climb out of the own prefix", "GET", bucket, f"{own.prefix}/../../../{other.pack}"),
        _object("climb out, encoded", "GET", bucket, f"{own.prefix}/%2e%2e/%2e%2e/%2e%2e/{other.pack}"),
        _object("climb out, encoded twice", "GET", bucket, f"{own.prefix}/..%252f..%252f..%252f{other.pack}"),
        _object("copy their pack", "PUT", bucket, own.pack, headers=copy),
        {"name": "delete many", "method": "POST", "url": f"{bucket}?delete", "body": "<Delete/>"},
        {"name": "read another bucket", "method": "GET", "url": f"{server}/{container}-2/{own.pack}"},
        _object("overwrite an own earlier manifest", "PUT", bucket, own.manifest),
        _object("delete an own earlier pack", "DELETE", bucket, own.pack),
        _unwrap("open their data key", other.volume_id, other.manifest, other.wrapped),
        _unwrap("open their data key as an own one", own.volume_id, own.manifest, other.wrapped),
        {"name": "get credentials", "ask": "/v1/credentials", "body": {}},
    ]


def _on_signatures(bucket: str, own: Place, other: Place, copy: dict[str, str]) -> list[Attempt]:
    read = _object("", "GET", bucket, own.pack)
    return [
        read | {"name": "use a signature for their pack", "sendUrl": f"{bucket}/{other.pack}"},
        read | {"name": "add a copy to a signed request", "addHeaders": copy},
        read | {"name": "read without a signature", "url": f"{bucket}/{other.pack}", "unsigned": True},
    ]


def _on_tokens(bucket: str, own: Place) -> list[Attempt]:
    secrets = f"https://kubernetes.default.svc/api/v1/namespaces/{RELEASE_NAMESPACE}/secrets"
    read = _object("", "GET", bucket, own.pack)
    return [
        read | {"name": "show a token for the API server", "tokenFile": API_TOKEN},
        read | {"name": "show no token", "token": "a.b.c"},
        {"name": "use the token elsewhere", "method": "GET", "url": secrets, "unsigned": True, "bearer": True},
    ]


def _object(name: str, method: str, bucket: str, key: str, **more: Any) -> Attempt:
    return {"name": name, "method": method, "url": f"{bucket}/{key}"} | more


def _listing(name: str, bucket: str, prefix: str) -> Attempt:
    encoded = prefix.replace("/", "%2F")
    return {"name": name, "method": "GET", "url": f"{bucket}?list-type=2&prefix={encoded}"}


def _unwrap(name: str, volume_id: str, manifest: str, wrapped: WrappedKey) -> Attempt:
    sealed = {
        "keyId": wrapped.key_id,
        "salt": base64.b64encode(wrapped.salt).decode(),
        "sealed": base64.b64encode(wrapped.sealed).decode(),
    }
    backup_id = manifest.rpartition("/")[2].removesuffix(".manifest")
    body = {"volumeId": volume_id, "backupId": backup_id, "wrapped": sealed}
    return {"name": name, "ask": "/v1/data-keys/unwrap", "body": body}
