"""A ClusterBackupStore in the embedded server: what its administrator does, and what they see of the bucket."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from cinderblock.format.crypto.keyring import WrappedKey
from cinderblock.format.manifest.header import HEADER_BYTES, parse_header
from tests.support.cluster.cluster import RELEASE_NAMESPACE, KubeCluster, Object
from tests.support.cluster.namespaces import Account

KIND = "clusterbackupstore"


@dataclass(frozen=True)
class SharedStore:
    """A ClusterBackupStore, with Secrets in the release's namespace. Namespaces with its label may use it.

    Attributes:
        name: of the ClusterBackupStore, and of its Secrets. It is also the key of the label, and the prefix.
        account: whose bucket and credentials it has.
        key: the encryption key, as the Secret has it.
    """

    kube: KubeCluster
    account: Account
    name: str
    key: str = field(repr=False)

    @classmethod
    def named(cls, kube: KubeCluster, account: Account, hint: str) -> SharedStore:
        """Return a store that does not exist yet."""
        key = base64.b64encode(secrets.token_bytes(32)).decode()
        return cls(kube, account, f"{hint}-{secrets.token_hex(3)}", key)

    def create(self, **limits: int) -> None:
        """Create the Secrets and the ClusterBackupStore, which allows no namespace."""
        spec = {
            "endpointUrl": self.account.endpoint_url,
            "container": self.account.container,
            "prefix": self.name,
            "credentialsSecretRef": {"name": self.name},
            "encryptionSecretRef": {"name": f"{self.name}-keys"},
            "limits": limits,
        }
        if self.kube.snapshot_class:
            spec["volumeSnapshotClassName"] = self.kube.snapshot_class
        metadata = {"name": self.name, "annotations": {"cinderblock.io/is-default-store": "true"}}
        credentials = {"AWS_ACCESS_KEY_ID": self.account.access_key, "AWS_SECRET_ACCESS_KEY": self.account.secret_key}
        self.kube.apply(
            self._secret(self.name, credentials),
            self._secret(f"{self.name}-keys", {"key-1": self.key}),
            {
                "apiVersion": "cinderblock.io/v1alpha1",
                "kind": "ClusterBackupStore",
                "metadata": metadata,
                "spec": spec,
            },
        )

    def _secret(self, name: str, data: dict[str, str]) -> Object:
        metadata = {"name": name, "namespace": RELEASE_NAMESPACE}
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}

    def allow_labelled(self) -> None:
        """Allow the namespaces that have the label."""
        allowed = {"from": "Selector", "selector": {"matchLabels": self.label}}
        self._patch({"allowedNamespaces": allowed})

    def _patch(self, spec: dict[str, Any]) -> None:
        self.kube.kubectl("patch", KIND, self.name, "--type=merge", "-p", json.dumps({"spec": spec}))

    @property
    def label(self) -> dict[str, str]:
        """The label of namespaces that may use it."""
        return {self.name: "yes"}

    def ready(self) -> tuple[str, str]:
        """Return status and message of the condition Ready, or nothing if there is none yet."""
        found = self.kube.get(KIND, self.name) or {}
        for condition in found.get("status", {}).get("conditions", []):
            if condition["type"] == "Ready":
                return condition["status"], condition["message"]
        return "", ""

    def keys(self) -> set[str]:
        """Return the keys of all its objects."""
        return self.account.keys(self.kube, self.name)

    def wrapped_key(self, manifest_key: str) -> WrappedKey:
        """Return the wrapped data key in a manifest."""
        with self.account.store().opened(self.kube) as store:
            wrapped = parse_header(store.get(manifest_key, 0, HEADER_BYTES), manifest_key).wrapped
        assert wrapped is not None, f"{manifest_key} is not sealed"
        return wrapped

    def delete(self) -> None:
        """Delete everything, and wait until the operator has let it go."""
        self.kube.kubectl("delete", KIND, self.name, "--timeout=120s", "--ignore-not-found")
        names = (self.name, f"{self.name}-keys")
        self.kube.kubectl("delete", "secret", *names, "-n", RELEASE_NAMESPACE, "--ignore-not-found")
