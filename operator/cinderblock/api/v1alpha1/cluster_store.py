"""`ClusterBackupStore`: one S3 store of an administrator that several namespaces share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from cinderblock.api.conditions import Conditions, ConditionType
from cinderblock.api.labels import DEFAULT_STORE_ANNOTATION
from cinderblock.api.meta import Model, Object, Uid
from cinderblock.api.v1alpha1.schedule import LabelSelector
from cinderblock.api.v1alpha1.store import (
    BackupStore,
    BackupStoreSpec,
    BackupStoreStatus,
    EndpointUrl,
    MoverAccess,
    Name,
    SecretReference,
    StoreAccess,
    StoreLimits,
)


class NamespacesFrom(StrEnum):
    """Which namespaces may use a ClusterBackupStore (Gateway API: AllowedRoutes ``namespaces.from``)."""

    NONE = "None"
    NAMES = "Names"
    SELECTOR = "Selector"
    ALL = "All"


class AllowedNamespaces(Model):
    """The namespaces that may use the store. Each of them gets a BackupStore of the same name."""

    from_: Annotated[NamespacesFrom, Field(alias="from")] = NamespacesFrom.NONE
    """Which namespaces: None, Names, Selector or All. Defaults to None."""
    names: Annotated[list[Name], Field(max_length=1000, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """Names of the namespaces, only with Names. Defaults to none."""
    selector: LabelSelector | None = None
    """Labels of the namespaces, only with Selector. An empty selector matches all namespaces. Defaults to none."""


class SessionCredentials(Model):
    """Session credentials from the security token service of the S3 server (AWS STS: AssumeRoleWithWebIdentity)."""

    role_arn: Annotated[str, Field(min_length=1, max_length=2048, pattern=r"^[!-~]+$")]
    """ARN of the role that the broker assumes with its own ServiceAccount token. The role must be allowed to do all
    that movers do below the prefix."""
    endpoint_url: EndpointUrl | None = None
    """URL of the token service. Defaults to that of AWS for the region."""
    audience: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[!-~]+$")] = "sts.amazonaws.com"
    """Audience of the token that the broker shows. Defaults to sts.amazonaws.com."""
    duration_seconds: Annotated[int, Field(ge=900, le=43200)] = 3600
    """Lifetime of the credentials of one mover, in seconds. A longer operation gets new ones. Defaults to 3600."""


class MoverAccessRules(Model):
    """How movers reach the store. None of them gets the credentials or the encryption keys of the store."""

    mode: MoverAccess = MoverAccess.SIGNED_REQUESTS
    """SignedRequests: the broker signs each request of a mover. It works with every S3 server. SessionCredentials: the
    mover gets credentials of the token service for its own operation. Defaults to SignedRequests."""
    session_credentials: SessionCredentials | None = None
    """The token service, only with SessionCredentials."""


class FormerNamespace(Model):
    """A namespace that continues with the backups of an earlier namespace."""

    namespace: Name
    """Name of the present namespace."""
    namespace_uid: Annotated[str, Field(alias="namespaceUID", min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    """UID of the present namespace (metadata.uid). The entry does not hold for a later namespace of the same name."""
    name: Name | None = None
    """Name of the earlier namespace. Defaults to the same name."""
    uid: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9-]+$")]
    """UID of the earlier namespace (metadata.uid), which is part of the keys of its objects."""


class ClusterStoreLimits(StoreLimits):
    """Limits on the movers of all namespaces together."""

    movers_per_namespace: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of movers of one namespace that may run at the same time for this store. Defaults to the limit of the
    cluster."""


class ClusterBackupStoreSpec(BackupStoreSpec):
    """Desired settings of the store. The Secrets are in the namespace of the operator."""

    cluster_store_ref: Literal[None] = None
    """Never set here."""
    credentials_secret_ref: SecretReference
    """Secret in the namespace of the operator with the S3 credentials in the keys AWS_ACCESS_KEY_ID and
    AWS_SECRET_ACCESS_KEY. The key AWS_SESSION_TOKEN is optional. It never leaves that namespace."""
    take_over: Literal[None] = None
    """Never set here: the place of a namespace has its UID, so no other cluster has it."""
    limits: ClusterStoreLimits = ClusterStoreLimits()
    """Limits on the movers of the store."""
    allowed_namespaces: AllowedNamespaces = AllowedNamespaces()
    """Namespaces that may use the store. Objects of each are below PREFIX/NAME/UID of the namespace. A namespace that
    is no longer allowed keeps its backups: they can be deleted, but not restored, and no new ones are made. Defaults
    to none."""
    mover_access: MoverAccessRules = MoverAccessRules()
    """How movers reach the store."""
    former_namespaces: Annotated[
        list[FormerNamespace],
        Field(
            max_length=1000,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["namespace"]},
        ),
    ] = []
    """Namespaces that continue with the objects of an earlier namespace, for example after the loss of a cluster, at
    most one entry for each. The operator refuses an entry while the earlier namespace still exists. While a namespace
    has backups in another place, it gets no new ones. The condition Ready names such namespaces, and nothing is moved
    or deleted. Defaults to none."""


class ClusterBackupStoreStatus(BackupStoreStatus):
    """Observed state of the store."""

    inventory: Literal[None] = None
    """Never set here: each BackupStore has its own."""
    released: Literal[None] = None
    """Never set here."""
    owner: Literal[None] = None
    """Never set here: the place of a namespace has its UID, so no other cluster has it."""
    copy_targets: Literal[None] = None
    """Never set here."""
    copy_mover: Literal[None] = None
    """Never set here."""
    conditions: Conditions = []
    """Conditions of the store. Ready is True if the store answered when the operator last checked it, and movers can
    reach it through the broker. StoresCreated tells whether each namespace that may use it has its BackupStore."""
    namespaces: Annotated[int, Field(ge=0)] | None = None
    """Number of namespaces that may use the store."""


class ClusterBackupStore(Object):
    """A store of an administrator that several namespaces share."""

    api_version: Literal["cinderblock.io/v1alpha1"] = "cinderblock.io/v1alpha1"
    kind: Literal["ClusterBackupStore"] = "ClusterBackupStore"
    spec: ClusterBackupStoreSpec
    status: ClusterBackupStoreStatus = ClusterBackupStoreStatus()

    @property
    def is_ready(self) -> bool:
        """Return whether it answered its last check, and movers could reach it."""
        return any(c.type == ConditionType.READY and c.status == "True" for c in self.status.conditions)

    @property
    def is_default(self) -> bool:
        """Return whether backups that name no store use it, in allowed namespaces without a default of their own."""
        return self.metadata.annotations.get(DEFAULT_STORE_ANNOTATION) == "true"


class SharedStore(BackupStore):
    """A BackupStore with clusterStoreRef, and with the settings that its ClusterBackupStore gives it.

    Only programs make it, never the API server: its spec is that of the ClusterBackupStore, with the prefix of the
    namespace. Everything that needs a store takes it for a BackupStore.
    """

    cluster_store: Name
    """Name of the ClusterBackupStore."""
    cluster_store_uid: Uid
    """UID of the ClusterBackupStore."""
    root_prefix: str = ""
    """Prefix of the ClusterBackupStore, below which the objects of all namespaces are."""
    own_prefix: str = ""
    """Prefix that the namespace has without an entry of spec.formerNamespaces."""
    secrets_in: Name
    """Namespace of the Secrets."""
    mover_access: MoverAccessRules
    """How its movers reach the store."""
    movers_per_namespace: int | None = None
    """Limit on the movers of the namespace; None: that of the cluster."""
    moved_from: frozenset[str] = frozenset()
    """Earlier places of the store whose objects are in the present one as well."""
    ca_certificates: str = ""
    """PEM certificates in the CA Secret, which movers cannot mount. Empty if the store has no CA Secret."""

    @property
    @override
    def is_read_only(self) -> bool:
        """Return whether nothing may change its bucket, as the ClusterBackupStore says now."""
        return self.spec.access is StoreAccess.READ_ONLY
