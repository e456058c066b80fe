"""``cinderblock embedded-store``

Creates secrets in the cluster, once. A Helm template would create new ones at every rendering. The Secret with the
server's accounts is the source of truth. Each namespace has its own account and its own bucket, so the credentials of
one namespace do not open the backups of another.

Accounts have the role ``user``, which cannot create buckets (versitygw: auth/iam.go). Otherwise one namespace could
create the bucket of another that is added later, and read what is stored there. This command creates each bucket for
its account. A namespace whose bucket belongs to another account gets no BackupStore. versitygw reads accounts from a
file ``users.json`` (versitygw: auth/iam_internal.go).
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

from cinderblock.api.labels import DEFAULT_STORE_ANNOTATION
from cinderblock.api.v1alpha1.store import BackupStore, BackupStoreSpec, SecretReference
from cinderblock.cli.async_command import run_async
from cinderblock.cli.exit_codes import SUCCESS
from cinderblock.errors import AlreadyExists, Conflict, NotFound, StoreUnreachable
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient, connect
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.s3.versitygw import create_bucket

STORE_NAME: Final = "default"
"""Name of the BackupStore in every namespace."""
ADMINISTRATOR_ID: Final = "ROOT_ACCESS_KEY"
ADMINISTRATOR_KEY: Final = "ROOT_SECRET_KEY"
"""Keys of the Secret with the server's accounts, and variables of the server, for its administrator."""
CREDENTIALS_NAME: Final = "cinderblock-embedded-store"
"""Name of the Secret with the account's credentials in every namespace."""
ENCRYPTION_NAME: Final = "cinderblock-embedded-store-encryption"
"""Name of the Secret with the encryption key in every namespace."""
LABELS: Final = {"app.kubernetes.io/name": "cinderblock", "app.kubernetes.io/component": "embedded-store"}

KEY_BYTES: Final = 32
"""Size of a key for AES-256."""
MAX_ATTEMPTS: Final = 5
"""Attempts to update accounts that another run changes at the same time."""
CRD_SECONDS: Final = 60
"""Time limit for the API server to serve BackupStores. Helm installs the type together with this Job."""

SERVER_SECONDS: Final = 300
"""Time limit for the S3 server to start, and to know a new account: the kubelet updates mounted Secrets within two
minutes."""
SERVER_RETRY_SECONDS: Final = 2

Sleep = Callable[[float], Awaitable[None]]
CreateBucket = Callable[[str, S3Credentials, str, str], bool]
"""See `create_bucket`."""


@dataclass(frozen=True, slots=True)
class EmbeddedStore:
    """The desired setup.

    Attributes:
        accounts_namespace: namespace of the S3 server.
        accounts_name: Secret with the server's accounts.
        endpoint_url: URL of the server inside the cluster.
        namespaces: namespaces that get a BackupStore.
        sealed: whether backups are encrypted.
    """

    accounts_namespace: str
    accounts_name: str
    endpoint_url: str
    namespaces: tuple[str, ...]
    sealed: bool = True


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of the S3 server.

    Attributes:
        administrator: the account that creates buckets.
        secret_keys: secret keys of the other accounts, by access key.
    """

    administrator: S3Credentials
    secret_keys: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Create missing accounts, encryption keys and BackupStores for the S3 server of the Helm chart."
    )
    parser.add_argument(
        "--accounts-secret", metavar="NAMESPACE/NAME", required=True, help="Secret with the server's accounts"
    )
    parser.add_argument("--endpoint-url", metavar="URL", required=True, help="URL of the server inside the cluster")
    parser.add_argument("--unsealed", action="store_true", help="create no encryption keys")
    parser.add_argument("namespaces", metavar="NAMESPACE", nargs="+", help="namespace that gets a BackupStore")


def run(arguments: argparse.Namespace) -> int:
    """Create what is missing. Returns the exit code."""
    namespace, _, name = arguments.accounts_secret.partition("/")
    desired = EmbeddedStore(
        namespace, name, arguments.endpoint_url, tuple(arguments.namespaces), sealed=not arguments.unsealed
    )
    run_async("embedded-store", _run(desired))
    return SUCCESS


async def _run(desired: EmbeddedStore) -> None:
    kube = await connect()
    try:
        await set_up(kube, desired)
    finally:
        await kube.aclose()


async def set_up(
    kube: KubeClient, desired: EmbeddedStore, *, sleep: Sleep = asyncio.sleep, create: CreateBucket = create_bucket
) -> None:
    """Create what is missing. Existing objects stay unchanged, except the roles of accounts, so this can be repeated.

    Raises:
        NotFound: a namespace does not exist, or the BackupStore type is not installed.
        Conflict: the accounts keep changing, or a bucket belongs to the account of another namespace.
        StoreUnreachable: the S3 server does not answer in time.
    """
    accounts = await _ensure_accounts(kube, desired)
    for namespace in desired.namespaces:
        await _ensure_credentials(kube, namespace, accounts.secret_keys[bucket(namespace)])
        if desired.sealed:
            await _ensure_key(kube, namespace)
    taken: Conflict | None = None
    for namespace in desired.namespaces:
        try:
            await _ensure_bucket(desired, accounts.administrator, bucket(namespace), sleep, create)
        except Conflict as error:
            # The other namespaces get their stores. This one gets none.
            taken = error
            continue
        await _ensure_store(kube, desired, namespace, sleep)
    if taken is not None:
        raise taken


def bucket(namespace: str) -> str:
    """Return the name of a namespace's bucket, and of the account that owns it."""
    return f"cinderblock-{namespace}"


async def _ensure_accounts(kube: KubeClient, desired: EmbeddedStore) -> Accounts:
    """Return the accounts, after adding those of new namespaces and giving all of them the role ``user``."""
    for _ in range(MAX_ATTEMPTS):
        found = await kube.get(kinds.SECRET, desired.accounts_name, desired.accounts_namespace)
        before = _read(found, "users.json")
        accounts = _read_accounts(before)
        missing = [bucket(namespace) for namespace in desired.namespaces if bucket(namespace) not in accounts]
        accounts |= {name: secrets.token_urlsafe(30) for name in missing}
        try:
            if found is None:
                found = await _create_accounts(kube, desired, accounts)
            elif _users(accounts) != before:
                version = {"resourceVersion": found["metadata"]["resourceVersion"]}
                patch = {"metadata": version, "stringData": {"users.json": _users(accounts)}}
                await kube.merge_patch(kinds.SECRET, desired.accounts_name, desired.accounts_namespace, patch)
        except Conflict:
            continue
        return Accounts(S3Credentials(_read(found, ADMINISTRATOR_ID), _read(found, ADMINISTRATOR_KEY)), accounts)
    raise Conflict(
        f"Cannot update Secret {desired.accounts_namespace}/{desired.accounts_name}: it keeps changing. Try again."
    )


def _read(secret: dict[str, Any] | None, key: str) -> str:
    """Return a value of a Secret; empty if it is absent."""
    return base64.b64decode(((secret or {}).get("data") or {}).get(key, "")).decode()


def _read_accounts(users: str) -> dict[str, str]:
    accounts = json.loads(users)["accessAccounts"] if users else {}
    return {name: account["secret"] for name, account in accounts.items()}


def _users(accounts: dict[str, str]) -> str:
    """Return the server's accounts file."""
    ids = {"userID": 0, "groupID": 0, "projectID": 0}
    entries = {name: {"access": name, "secret": key, "role": "user"} | ids for name, key in accounts.items()}
    return json.dumps({"accessAccounts": entries}, indent=2)


async def _create_accounts(kube: KubeClient, desired: EmbeddedStore, accounts: dict[str, str]) -> dict[str, Any]:
    data = {
        ADMINISTRATOR_ID: secrets.token_hex(10),
        ADMINISTRATOR_KEY: secrets.token_urlsafe(30),
        "users.json": _users(accounts),
    }
    return await kube.create(kinds.SECRET, _secret(desired.accounts_namespace, desired.accounts_name, data))


async def _ensure_bucket(
    desired: EmbeddedStore, administrator: S3Credentials, name: str, sleep: Sleep, create: CreateBucket
) -> None:
    """Create a bucket for the account of the same name. Wait for a server that is starting."""
    for remaining in range(SERVER_SECONDS, 0, -SERVER_RETRY_SECONDS):
        try:
            created = await asyncio.to_thread(create, desired.endpoint_url, administrator, name, name)
        except StoreUnreachable:
            if remaining <= SERVER_RETRY_SECONDS:
                raise
            await sleep(SERVER_RETRY_SECONDS)
            continue
        if created:
            print(f"Created bucket {name}.")
        return


async def _ensure_credentials(kube: KubeClient, namespace: str, secret_key: str) -> None:
    data = {"AWS_ACCESS_KEY_ID": bucket(namespace), "AWS_SECRET_ACCESS_KEY": secret_key}
    try:
        await kube.create(kinds.SECRET, _secret(namespace, CREDENTIALS_NAME, data))
    except AlreadyExists:
        await kube.merge_patch(kinds.SECRET, CREDENTIALS_NAME, namespace, {"stringData": data})


async def _ensure_key(kube: KubeClient, namespace: str) -> None:
    """Create an encryption key. An existing one never changes, because backups depend on it."""
    key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
    try:
        await kube.create(kinds.SECRET, _secret(namespace, ENCRYPTION_NAME, {"key-1": key}))
    except AlreadyExists:
        return
    print(f"Created encryption key {namespace}/{ENCRYPTION_NAME}. Keep a copy outside the cluster.")


def _secret(namespace: str, name: str, data: dict[str, str]) -> dict[str, Any]:
    return {
        "metadata": {"namespace": namespace, "name": name, "labels": LABELS},
        "type": "Opaque",
        "stringData": data,
    }


async def _ensure_store(kube: KubeClient, desired: EmbeddedStore, namespace: str, sleep: Sleep) -> None:
    """Create the namespace's BackupStore. An existing one stays unchanged, and so does another default store."""
    stores = await _list_stores(kube, namespace, sleep)
    if any(store.name == STORE_NAME for store in stores):
        return
    spec = BackupStoreSpec(
        endpoint_url=desired.endpoint_url,
        container=bucket(namespace),
        create_container=False,
        credentials_secret_ref=SecretReference(name=CREDENTIALS_NAME),
        encryption_secret_ref=SecretReference(name=ENCRYPTION_NAME) if desired.sealed else None,
    )
    default = {} if any(store.is_default for store in stores) else {DEFAULT_STORE_ANNOTATION: "true"}
    body = {
        "metadata": {"namespace": namespace, "name": STORE_NAME, "labels": LABELS, "annotations": default},
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude_none=True),
    }
    try:
        await kube.create(kinds.BACKUP_STORE, body)
    except AlreadyExists:
        return
    print(f"Created BackupStore {namespace}/{STORE_NAME}.")


async def _list_stores(kube: KubeClient, namespace: str, sleep: Sleep) -> Sequence[BackupStore]:
    for _ in range(CRD_SECONDS):
        try:
            bodies = await kube.list(kinds.BACKUP_STORE, namespace)
        except NotFound:
            await sleep(1)
            continue
        return [BackupStore.model_validate(body) for body in bodies]
    raise NotFound(
        f"Cannot list BackupStores: the API server still does not serve them after {CRD_SECONDS} s. Check the"
        " CustomResourceDefinitions."
    )
