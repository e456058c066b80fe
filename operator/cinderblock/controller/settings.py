"""Settings of the operator, read once from the environment; nothing else reads it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from cinderblock.api.labels import GROUP, MANAGED_BY_LABEL
from cinderblock.controller.leaderelection.lease import LEASE_SECONDS
from cinderblock.controller.webhook.settings import WebhookSettings
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.observed import PodSecurityLevel
from cinderblock.store.endpoint_policy import AllowedEndpoint

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Variables that name the proxy to S3 servers, and the servers that are reached without it."""
POD_SECURITY_LEVELS = tuple(level.value for level in PodSecurityLevel)
SCHEDULE_KINDS = {
    "all": frozenset({"BackupSchedule", "ClusterBackupSchedule"}),
    "namespaced": frozenset({"BackupSchedule"}),
    "none": frozenset[str](),
}
"""Kinds of schedules that the operator works on, by the words of the setting."""
BOOLEANS = ("false", "true")
_BROKER_URL = re.compile(r"https://[A-Za-z0-9.-]+(:[0-9]{1,5})?")
LOG_LEVELS = ("info", "debug", "warning", "error")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of the operator process.

    Attributes:
        mover_image: image of mover pods, normally the operator's own.
        mover_image_pull_policy: Always, IfNotPresent or Never.
        mover_image_pull_secrets: names of Secrets for pulling it, in the mover's namespace.
        mover_labels, mover_annotations: of all Jobs, pods, claims and VolumeSnapshots that the operator creates.
        proxies: the PROXY_VARIABLES that are set, with their values. Movers get them, too.
        mover_pod_security: what spec.mover of a BackupStore may ask for: baseline, restricted or privileged.
        root_movers_require_opt_in: whether movers run as root only in annotated namespaces.
        allow_system_priority: whether movers may have a priority class of the system.
        allowed_endpoints: S3 endpoints that BackupStores may name; empty: all.
        max_movers: mover Jobs that may run at the same time in the whole cluster.
        max_movers_per_namespace: mover Jobs that may run at the same time in one namespace.
        max_verifications_per_store: mover Jobs of verifications that may run at the same time for one BackupStore.
        max_objects_per_namespace: VolumeBackups of one namespace that are worked on; the same number of VolumeRestores,
            of BackupVerifications, and of BackupStores.
        workers: objects reconciled at the same time.
        resync_seconds: seconds between two resyncs of all objects.
        health_port: port of /healthz and /readyz.
        metrics_port: port of /metrics.
        log_level: least severe level that is logged: debug, info, warning or error.
        lease_namespace: namespace of the Lease for leader election; None: the one in which this process runs.
        lease_name: name of the Lease.
        lease_seconds: duration of the Lease: for so long no replica acts after a leader has died.
        watch_namespaces: the namespaces in which the operator works; empty: all.
        schedule_kinds: kinds of schedules that the operator works on.
        release: name of the Helm release, which manifests record; empty if not installed by Helm.
        webhook: where notifications about alerts go; None: nowhere.
        cluster_stores: whether the operator works on ClusterBackupStores; never with ``watch_namespaces``.
        populates: whether the operator fills claims whose dataSourceRef names a VolumeBackup or a RestoreSource.
        broker_url: URL of the broker, with https://; empty: there is none.
        broker_secret: Secret in the operator's namespace with ca.crt of the broker's authority.
    """

    mover_image: str
    mover_image_pull_policy: str = "IfNotPresent"
    mover_image_pull_secrets: tuple[str, ...] = ()
    mover_labels: tuple[tuple[str, str], ...] = ()
    mover_annotations: tuple[tuple[str, str], ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()
    mover_pod_security: PodSecurityLevel = PodSecurityLevel.BASELINE
    root_movers_require_opt_in: bool = False
    allow_system_priority: bool = False
    allowed_endpoints: tuple[str, ...] = ()
    max_movers: int = 16
    max_movers_per_namespace: int = 8
    max_verifications_per_store: int = 1
    max_objects_per_namespace: int = 20_000
    workers: int = 16
    resync_seconds: float = 600.0
    health_port: int = 8080
    metrics_port: int = 8081
    log_level: str = "info"
    lease_namespace: str | None = None
    lease_name: str = "cinderblock"
    lease_seconds: float = LEASE_SECONDS
    watch_namespaces: tuple[str, ...] = ()
    schedule_kinds: frozenset[str] = SCHEDULE_KINDS["all"]
    release: str = ""
    webhook: WebhookSettings | None = None
    cluster_stores: bool = True
    populates: bool = True
    broker_url: str = ""
    broker_secret: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> OperatorSettings:
        """Read the CINDERBLOCK_* and proxy variables.

        Raises InvalidInput naming the variable that is missing or invalid.
        """
        image = environment.get("CINDERBLOCK_MOVER_IMAGE", "")
        if not image:
            raise InvalidInput(
                "CINDERBLOCK_MOVER_IMAGE is not set. Set it to the image of the movers, normally the operator's own."
            )
        max_movers = _positive(environment, "CINDERBLOCK_MAX_MOVERS", 16)
        half = max(1, max_movers // 2)
        watched = _names(environment, "CINDERBLOCK_WATCH_NAMESPACES")
        works_on_cluster_stores = _one_of(environment, "CINDERBLOCK_CLUSTER_STORES", ("true", "false")) == "true"
        return cls(
            mover_image=image,
            mover_image_pull_policy=environment.get("CINDERBLOCK_MOVER_IMAGE_PULL_POLICY", "IfNotPresent"),
            mover_image_pull_secrets=_names(environment, "CINDERBLOCK_MOVER_IMAGE_PULL_SECRETS"),
            mover_labels=_pairs(environment, "CINDERBLOCK_MOVER_LABELS"),
            mover_annotations=_pairs(environment, "CINDERBLOCK_MOVER_ANNOTATIONS"),
            proxies=_proxies(environment),
            allowed_endpoints=_endpoints(environment),
            mover_pod_security=PodSecurityLevel(
                _one_of(environment, "CINDERBLOCK_MOVER_POD_SECURITY", POD_SECURITY_LEVELS)
            ),
            root_movers_require_opt_in=_one_of(environment, "CINDERBLOCK_ROOT_MOVERS_REQUIRE_OPT_IN", BOOLEANS)
            == "true",
            allow_system_priority=_one_of(environment, "CINDERBLOCK_ALLOW_SYSTEM_PRIORITY", BOOLEANS) == "true",
            max_movers=max_movers,
            max_movers_per_namespace=_positive(environment, "CINDERBLOCK_MAX_MOVERS_PER_NAMESPACE", half),
            max_verifications_per_store=_positive(environment, "CINDERBLOCK_MAX_VERIFICATIONS_PER_STORE", 1),
            max_objects_per_namespace=_positive(environment, "CINDERBLOCK_MAX_OBJECTS_PER_NAMESPACE", 20_000),
            workers=_positive(environment, "CINDERBLOCK_WORKERS", 16),
            resync_seconds=float(_positive(environment, "CINDERBLOCK_RESYNC_SECONDS", 600)),
            health_port=_positive(environment, "CINDERBLOCK_HEALTH_PORT", 8080),
            metrics_port=_positive(environment, "CINDERBLOCK_METRICS_PORT", 8081),
            log_level=_one_of(environment, "CINDERBLOCK_LOG_LEVEL", LOG_LEVELS),
            lease_namespace=environment.get("CINDERBLOCK_LEASE_NAMESPACE") or None,
            lease_name=environment.get("CINDERBLOCK_LEASE_NAME", "cinderblock"),
            lease_seconds=_positive(environment, "CINDERBLOCK_LEASE_SECONDS", int(LEASE_SECONDS)),
            watch_namespaces=watched,
            schedule_kinds=SCHEDULE_KINDS[_one_of(environment, "CINDERBLOCK_SCHEDULES", tuple(SCHEDULE_KINDS))],
            release=environment.get("CINDERBLOCK_RELEASE", ""),
            webhook=WebhookSettings.from_environment(environment, _endpoints(environment)),
            cluster_stores=works_on_cluster_stores and not watched,
            populates=_one_of(environment, "CINDERBLOCK_POPULATOR", ("true", "false")) == "true",
            broker_url=_broker_url(environment),
            broker_secret=environment.get("CINDERBLOCK_BROKER_SECRET", ""),
        )


def _broker_url(environment: Mapping[str, str]) -> str:
    """Return the URL of the broker. Tokens and data keys travel there, so it must have TLS."""
    url = environment.get("CINDERBLOCK_BROKER_URL", "")
    if url and not _BROKER_URL.fullmatch(url):
        raise InvalidInput(f"CINDERBLOCK_BROKER_URL is {url!r}. Use https://HOST or https://HOST:PORT.")
    if url and not environment.get("CINDERBLOCK_BROKER_SECRET"):
        raise InvalidInput("CINDERBLOCK_BROKER_SECRET is not set. Name the Secret with ca.crt of the broker.")
    return url


def _proxies(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the proxy variables that are set. A password in one would be readable in every mover's Job."""
    found = tuple((name, environment[name]) for name in PROXY_VARIABLES if environment.get(name))
    for name, value in found:
        if "@" in value:
            raise InvalidInput(f"{name} contains a user or password. Use a proxy that needs none, as http://host:port.")
    return found


def _pairs(environment: Mapping[str, str], name: str) -> tuple[tuple[str, str], ...]:
    """Return the JSON object in a variable as sorted pairs. Our own keys are refused."""
    try:
        found = json.loads(environment.get(name) or "{}")
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise InvalidInput(
            f"{name} is not a JSON object of strings. Correct mover.labels and mover.annotations of the chart."
        )
    for key in found:
        if key.startswith(f"{GROUP}/") or key == MANAGED_BY_LABEL:
            raise InvalidInput(f"{name} contains {key}, which Cinderblock sets itself. Remove it.")
    return tuple(sorted(found.items()))


def _names(environment: Mapping[str, str], variable: str) -> tuple[str, ...]:
    """Return the names in a variable, which commas separate."""
    return tuple(name for name in environment.get(variable, "").split(",") if name)


def _endpoints(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the allowed S3 endpoints. An entry that cannot be read must not allow all."""
    found = tuple(text for text in environment.get("CINDERBLOCK_ALLOWED_ENDPOINTS", "").split(",") if text.strip())
    for text in found:
        AllowedEndpoint.parse(text)
    return found


def _one_of(environment: Mapping[str, str], name: str, choices: tuple[str, ...]) -> str:
    """Return the value of a variable that has these choices. The first one is the default."""
    text = environment.get(name, choices[0])
    if text not in choices:
        raise InvalidInput(f"{name} is {text!r}. Use one of {', '.join(choices)}.")
    return text


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    """Return the value of a variable as a whole number above zero."""
    text = environment.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInput(f"{name} is {text!r}. Use a whole number above zero.")
    return int(text)
