"""`cinderblock embedded-store`: accounts, credentials, keys and BackupStores for the chart's own S3 server.

What is secret is made here, in the cluster, once, and never again: a template would make it anew at every rendering.
The server's accounts (a Secret beside it) are the truth. Every namespace has an account of its own and a bucket that
only this account can read, so one namespace's credentials say nothing about the backups of another.

versitygw reads accounts from a file ``users.json`` (versitygw: auth/iam_internal.go).
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cinderblock.api.v1alpha1.store import DEFAULT_STORE_ANNOTATION, BackupStore, BackupStoreSpec, SecretReference
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.errors import AlreadyExists, Conflict, NotFound
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect

STORE: Final = "default"
"""Name of the BackupStore in every namespace."""
CREDENTIALS: Final = "cinderblock-embedded-store"
"""Name of the Secret with the account's credentials in every namespace."""
ENCRYPTION: Final = "cinderblock-embedded-store-encryption"
"""Name of the Secret with the encryption key in every namespace."""
LABELS: Final = {"app.kubernetes.io/name": "cinderblock", "app.kubernetes.io/component": "embedded-store"}

KEY_BYTES: Final = 32
"""AES-256."""
ATTEMPTS: Final = 5
"""How often the accounts are read again that another run changes at the same moment."""
CRD_SECONDS: Final = 60
"""How long the BackupStore type may take to be served: it is installed together with us."""

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """What is to be set up.

    Attributes:
        accounts_namespace: where the S3 server is.
        accounts_name: the Secret that the server reads.
        endpoint_url: URL of the server, as seen from pods.
        namespaces: which namespaces are to have a BackupStore.
        sealed: whether backups are encrypted.
    """

    accounts_namespace: str
    accounts_name: str
    endpoint_url: str
    namespaces: tuple[str, ...]
    sealed: bool = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command to its parser."""
    parser.description = (
        "Make accounts, keys and BackupStores for the chart's own S3 server, as far as they are missing."
    )
    parser.add_argument("--accounts-secret", metavar="NAMESPACE/NAME", required=True, help="the server's accounts")
    parser.add_argument("--endpoint-url", metavar="URL", required=True, help="the server, as seen from pods")
    parser.add_argument("--unsealed", action="store_true", help="make no encryption keys")
    parser.add_argument("namespaces", metavar="NAMESPACE", nargs="+", help="where to make a BackupStore")


def run(arguments: argparse.Namespace) -> int:
    """Do it. Returns its exit code."""
    namespace, _, name = arguments.accounts_secret.partition("/")
    wanted = EmbeddedStore(
        namespace, name, arguments.endpoint_url, tuple(arguments.namespaces), sealed=not arguments.unsealed
    )
    asyncio.run(_run(wanted))
    return SUCCESS


async def _run(wanted: EmbeddedStore) -> None:
    kube = await connect()
    try:
        await set_up(kube, wanted)
    finally:
        await kube.aclose()


async def set_up(kube: KubeClient, wanted: EmbeddedStore, *, sleep: Sleep = asyncio.sleep) -> None:
    """Make what is missing; what is there stays as it is. May be repeated.

    Raises:
        NotFound: a namespace does not exist, or the BackupStore type is not installed.
        Conflict: the accounts change all the time.
    """
    accounts = await _ensure_accounts(kube, wanted)
    for namespace in wanted.namespaces:
        await _ensure_credentials(kube, namespace, accounts[bucket(namespace)])
        if wanted.sealed:
            await _ensure_key(kube, namespace)
        await _ensure_store(kube, wanted, namespace, sleep)


def bucket(namespace: str) -> str:
    """Name of a namespace's bucket, and of the account that owns it."""
    return f"cinderblock-{namespace}"


async def _ensure_accounts(kube: KubeClient, wanted: EmbeddedStore) -> dict[str, str]:
    """The server's accounts, with one for every wanted namespace: secret keys by access key."""
    for _ in range(ATTEMPTS):
        found = await kube.get(kinds.SECRET, wanted.accounts_name, wanted.accounts_namespace)
        accounts = _read_accounts(found)
        missing = [bucket(namespace) for namespace in wanted.namespaces if bucket(namespace) not in accounts]
        accounts |= {name: secrets.token_urlsafe(30) for name in missing}
        try:
            if found is None:
                await _create_accounts(kube, wanted, accounts)
            elif missing:
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                patch = {"metadata": version, "stringData": {"users.json": _users(accounts)}}
                await kube.merge_patch(kinds.SECRET, wanted.accounts_name, wanted.accounts_namespace, patch)
        except Conflict:
            continue
        return accounts
    raise Conflict(f"Secret {wanted.accounts_namespace}/{wanted.accounts_name} changes all the time: try again")


def _read_accounts(secret: dict[str, Any] | None) -> dict[str, str]:
    encoded = ((secret or {}).get("data") or {}).get("users.json")
    if not encoded:
        return {}
    accounts = json.loads(base64.b64decode(encoded))["accessAccounts"]
    return {name: account["secret"] for name, account in accounts.items()}


def _users(accounts: dict[str, str]) -> str:
    """The server's accounts file. Role userplus: may create buckets, and sees none but its own."""
    ids = {"userID": 0, "groupID": 0, "projectID": 0}
    entries = {name: {"access": name, "secret": key, "role": "userplus"} | ids for name, key in accounts.items()}
    return json.dumps({"accessAccounts": entries}, indent=2)


async def _create_accounts(kube: KubeClient, wanted: EmbeddedStore, accounts: dict[str, str]) -> None:
    data = {
        "ROOT_ACCESS_KEY": secrets.token_hex(10),
        "ROOT_SECRET_KEY": secrets.token_urlsafe(30),
        "users.json": _users(accounts),
    }
    await kube.create(kinds.SECRET, _secret(wanted.accounts_namespace, wanted.accounts_name, data))


async def _ensure_credentials(kube: KubeClient, namespace: str, secret_key: str) -> None:
    data = {"AWS_ACCESS_KEY_ID": bucket(namespace), "AWS_SECRET_ACCESS_KEY": secret_key}
    try:
        await kube.create(kinds.SECRET, _secret(namespace, CREDENTIALS, data))
    except AlreadyExists:
        await kube.merge_patch(kinds.SECRET, CREDENTIALS, namespace, {"stringData": data})


async def _ensure_key(kube: KubeClient, namespace: str) -> None:
    """An encryption key that is there already is never touched: backups are sealed with it."""
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    try:
        await kube.create(kinds.SECRET, _secret(namespace, ENCRYPTION, {"key-1": key}))
    except AlreadyExists:
        return
    print(f"Made encryption key {namespace}/{ENCRYPTION}: keep a copy outside the cluster")


def _secret(namespace: str, name: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": LABELS},
        "type": "Opaque",
        "stringData": data,
    }


async def _ensure_store(kube: KubeClient, wanted: EmbeddedStore, namespace: str, sleep: Sleep) -> None:
    """The namespace's BackupStore. One that people have changed stays changed; another default stays the default."""
    stores = await _list_stores(kube, namespace, sleep)
    if any(store.name == STORE for store in stores):
        return
    spec = BackupStoreSpec(
        endpoint_url=wanted.endpoint_url,
        container=bucket(namespace),
        credentials_secret_ref=SecretReference(name=CREDENTIALS),
        encryption_secret_ref=SecretReference(name=ENCRYPTION) if wanted.sealed else None,
    )
    default = {} if any(store.is_default for store in stores) else {DEFAULT_STORE_ANNOTATION: "true"}
    body = {
        "metadata": {"namespace": namespace, "name": STORE, "labels": LABELS, "annotations": default},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True),
    }
    try:
        await kube.create(kinds.BACKUP_STORE, body)
    except AlreadyExists:
        return
    print(f"Made BackupStore {namespace}/{STORE}")


async def _list_stores(kube: KubeClient, namespace: str, sleep: Sleep) -> Sequence[BackupStore]:
    for _ in range(CRD_SECONDS):
        try:
            bodies = await kube.list(kinds.BACKUP_STORE, namespace)
        except NotFound:
            await sleep(1)
            continue
        return [BackupStore.model_validate(body) for body in bodies]
    raise NotFound(f"BackupStores are not served after {CRD_SECONDS} s: see the CustomResourceDefinitions")
