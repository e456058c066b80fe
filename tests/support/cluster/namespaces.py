"""The namespace of a user of Cinderblock: volumes, backups, restores, and a store in the embedded server."""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tests.support.cluster.cluster import KubeCluster, KubeClusterError, Object
from tests.support.cluster.recorder import OPERATOR, OWNER_LABEL, Recorder
from tests.support.cluster.secret_scan import forms
from tests.support.cluster.workloads import put_tools
from tests.support.store.objects_in_store import EmbeddedStore

HOME = "cinderblock-e2e"
"""The namespace that the chart makes an account for; tenants use it, each below a prefix of its own."""
ERRORS = ("error", "error_restoring", "error_deleting")
CHILDREN = "jobs,pods,persistentvolumeclaims,volumesnapshots.snapshot.storage.k8s.io"
CREDENTIALS, ENCRYPTION = "s3-credentials", "backup-encryption"


@dataclass(frozen=True)
class Account:
    """The account that the chart created for HOME, and the address of the embedded store."""

    endpoint_url: str
    container: str
    access_key: str
    secret_key: str = field(repr=False)

    @classmethod
    def of(cls, kube: KubeCluster) -> Account:
        """Return the account, once the setup Job of the chart has created it."""
        store = kube.wait_until(
            "BackupStore of the chart", lambda: kube.get("backupstore", "default", HOME), timeout=90
        )
        secret = kube.get("secret", store["spec"]["credentialsSecretRef"]["name"], HOME) or {"data": {}}
        data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
        return cls(
            store["spec"]["endpointUrl"],
            store["spec"]["container"],
            data["AWS_ACCESS_KEY_ID"],
            data["AWS_SECRET_ACCESS_KEY"],
        )

    def store(self, prefix: str = "") -> EmbeddedStore:
        """Return the part of the account's bucket below a prefix."""
        secret = {"AWS_ACCESS_KEY_ID": self.access_key.encode(), "AWS_SECRET_ACCESS_KEY": self.secret_key.encode()}
        return EmbeddedStore(self.container, prefix, secret)

    def keys(self, kube: KubeCluster, prefix: str) -> set[str]:
        """Return the keys of all objects below a prefix."""
        return self.store(prefix).keys(kube)

    def purge(self, kube: KubeCluster, prefix: str) -> None:
        """Remove the objects that a deleted tenant has left in the store."""
        left = sorted(self.keys(kube, prefix))
        with self.store(prefix).opened(kube) as opened:
            opened.delete(left)


@dataclass
class Tenant:
    """One namespace.

    Attributes:
        name: the namespace's.
        secrets: what must never be seen anywhere.
        kept: keys that the test leaves in the store on purpose.
        is_gone: whether the test has deleted the namespace.
        prefix: of its keys in a store that it shares; empty: it has a store of its own.
    """

    kube: KubeCluster
    recorder: Recorder
    account: Account
    name: str
    secrets: list[str] = field(default_factory=list, repr=False)
    kept: set[str] = field(default_factory=set)
    is_gone: bool = False
    prefix: str = ""

    @classmethod
    def make(cls, kube: KubeCluster, recorder: Recorder, account: Account, hint: str, **options: Any) -> Tenant:
        """Create a namespace with tools and a store.

        Options: labels of the namespace; is_default of the store, or has_store=False for none.
        """
        words = re.sub(r"[^a-z0-9]+", "-", hint.lower().removeprefix("test_"))[:36].strip("-")
        tenant = cls(kube, recorder, account, f"e2e-{words}-{secrets.token_hex(3)}")
        tenant.secrets.append(account.secret_key)
        metadata = {"name": tenant.name, "labels": options.get("labels", {})}
        objects = [{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}]
        if options.get("has_store", True):
            objects += tenant._own_store(is_default=options.get("is_default", True))
        kube.apply(*objects)
        put_tools(kube, tenant.name)
        return tenant

    def _own_store(self, *, is_default: bool) -> list[Object]:
        """Return a store with its Secrets."""
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        self.secrets.append(key)
        account = {"AWS_ACCESS_KEY_ID": self.account.access_key, "AWS_SECRET_ACCESS_KEY": self.account.secret_key}
        return [
            self.secret(CREDENTIALS, **account),
            self.secret(ENCRYPTION, **{"key-1": key}),
            self.store("default", is_default=is_default),
        ]

    def secret(self, name: str, **data: str) -> Object:
        """Return a Secret."""
        metadata = {"name": name, "namespace": self.name}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}

    def store(self, name: str, *, is_default: bool = False, **spec: Any) -> Object:
        """Create a BackupStore in the embedded server. ``spec`` overrides fields; None leaves one out."""
        annotations = {"cinderblock.io/is-default-store": "true"} if is_default else {}
        usual = {
            "endpointUrl": self.account.endpoint_url,
            "container": self.account.container,
            "prefix": self.name,
            "credentialsSecretRef": {"name": CREDENTIALS},
            "encryptionSecretRef": {"name": ENCRYPTION},
            "volumeSnapshotClassName": self.kube.snapshot_class,
        }
        metadata = {"name": name, "namespace": self.name, "annotations": annotations}
        wanted = {field: value for field, value in (usual | spec).items() if value is not None}
        return self._ours("BackupStore", metadata, wanted)

    def backup(self, name: str, volume: str, /, **spec: Any) -> Object:
        """Return a VolumeBackup of a claim."""
        return self._ours("VolumeBackup", {"name": name, "namespace": self.name}, {"volumeId": volume} | spec)

    def adopt(self, name: str, backup_id: str, /, **spec: Any) -> Object:
        """Return a VolumeBackup that imports a backup in the store."""
        return self._ours("VolumeBackup", {"name": name, "namespace": self.name}, {"import": {"id": backup_id}} | spec)

    def restore(self, name: str, backup: str, /, **spec: Any) -> Object:
        """Return a VolumeRestore of a VolumeBackup."""
        return self._ours("VolumeRestore", {"name": name, "namespace": self.name}, {"backupId": backup} | spec)

    def _ours(self, kind: str, metadata: Object, spec: Object) -> Object:
        return {"apiVersion": "cinderblock.io/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Run kubectl in the namespace; options as of `KubeCluster.kubectl`."""
        return self.kube.kubectl("-n", self.name, *arguments, **options)

    def limit(self, **limits: int) -> None:
        """Set limits of the default store."""
        self.kube.apply(self.store("default", is_default=True, limits=limits))

    def get(self, kind: str, name: str) -> Object:
        """Return an object, which must exist."""
        found = self.kube.get(kind, name, self.name)
        if found is None:
            raise KubeClusterError(f"{kind} {name} is gone from {self.name}")
        return found

    def wait_until(self, what: str, seen: Callable[[], Any], *, timeout: float = 90) -> Any:
        """Wait as `KubeCluster.wait_until` does. A failure reports everything that a person would check."""
        return self.kube.wait_until(what, seen, timeout=timeout, details=lambda: self.kube.diagnose(self.name))

    def ends(self, *operations: str, timeout: float = 120) -> list[Object]:
        """Wait until ``kind/name`` are available. Raises KubeClusterError as soon as one has failed."""
        return [self.reaches(operation, "available", timeout=timeout) for operation in operations]

    def reaches(self, operation: str, *phases: str, timeout: float = 120) -> Object:
        """Wait until ``kind/name`` is in one of the phases; returns it."""
        kind, name = operation.split("/")

        def seen() -> Object | None:
            found = self.get(kind, name)
            phase = found.get("status", {}).get("phase")
            if phase in ERRORS and phase not in phases:
                state = self.kube.diagnose(self.name)
                raise KubeClusterError(f"{operation} is in {phase}: {found['status'].get('failReason')}\n{state}")
            return found if phase in phases else None

        found: Object = self.wait_until(f"{operation} in {' or '.join(phases)}", seen, timeout=timeout)
        return found

    def says(self, operation: str, reason: str, *, timeout: float = 60) -> str:
        """Wait until a condition of ``kind/name`` has this reason; returns its message."""
        kind, name = operation.split("/")

        def seen() -> list[str]:
            conditions = self.get(kind, name).get("status", {}).get("conditions", [])
            return [condition["message"] for condition in conditions if condition["reason"] == reason]

        messages: list[str] = self.wait_until(f"{operation} with reason {reason}", seen, timeout=timeout)
        return messages[0]

    def disappears(self, *operations: str, timeout: float = 60) -> None:
        """Wait until ``kind/name`` are no more."""
        for operation in operations:
            self.wait_until(f"end of {operation}", partial(self._is_gone, *operation.split("/")), timeout=timeout)

    def _is_gone(self, kind: str, name: str) -> bool:
        return self.kube.get(kind, name, self.name) is None

    def delete(self, *operations: str, timeout: float = 60) -> None:
        """Delete ``kind/name`` and wait until they are no more."""
        self.kubectl("delete", *operations, "--wait=false")
        self.disappears(*operations, timeout=timeout)

    def children(self, owner_uid: str = "") -> list[str]:
        """Return the children of one operation or of all, as ``kind/name``."""
        labels = f"{OWNER_LABEL}={owner_uid}" if owner_uid else OWNER_LABEL
        found = self.kubectl("get", CHILDREN, "-l", labels, "-o", "name", "--ignore-not-found")
        return found.split()

    def events(self, name: str) -> list[Object]:
        """Return the Events about one of our objects."""
        found = self.kube.items("events", self.name)
        return [event for event in found if event["involvedObject"]["name"] == name]

    def keys(self) -> set[str]:
        """Return the keys of the tenant's objects in the store."""
        if self.prefix:
            return self.account.keys(self.kube, self.prefix)
        return EmbeddedStore.of(self.kube, self.name).keys(self.kube)

    def volumes(self) -> dict[str, str]:
        """Return the PersistentVolumes of the namespace's claims: claim by volume."""
        found = self.kube.items("persistentvolumes")
        claims = {item["metadata"]["name"]: item["spec"].get("claimRef") or {} for item in found}
        return {name: claim["name"] for name, claim in claims.items() if claim.get("namespace") == self.name}

    def exposed_secrets(self) -> list[str]:
        """Return the places, other than Secrets, where a secret of the tenant can be read."""
        places = {
            "an object": self.kubectl(
                "get", f"backupstores,volumebackups,volumerestores,backupverifications,events,{CHILDREN}", "-o", "yaml"
            ),
            "a mover": self.recorder.text_of(self.name),
            "the operator's log": self.recorder.text_of(OPERATOR),
        }
        return [
            f"{place} shows a secret of {self.name}"
            for place, text in places.items()
            for secret in self.secrets
            if any(form in text for form in forms(secret))
        ]
