"""Settings of the operator, read once from the environment; nothing else reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cinderblock.errors import InvalidInput
from cinderblock.store.endpoint_policy import AllowedEndpoint

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Variables that name the proxy to S3 servers, and the servers that are reached without it."""
LOG_LEVELS = ("info", "debug", "warning", "error")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of the operator process.

    Attributes:
        mover_image: image of mover pods, normally the operator's own.
        mover_image_pull_policy: Always, IfNotPresent or Never.
        mover_image_pull_secrets: names of Secrets for pulling it, in the mover's namespace.
        proxies: the PROXY_VARIABLES that are set, with their values. Movers get them, too.
        allowed_endpoints: S3 endpoints that BackupStores may name; empty: all.
        max_movers: mover Jobs that may run at the same time in the whole cluster.
        workers: objects reconciled at the same time.
        resync_seconds: seconds between two resyncs of all objects.
        health_port: port of /healthz and /readyz.
        metrics_port: port of /metrics.
        log_level: least severe level that is logged: debug, info, warning or error.
        lease_namespace: namespace of the Lease for leader election; None: the one in which this process runs.
        lease_name: name of the Lease.
        lease_seconds: duration of the Lease: for so long no replica acts after a leader has died.
        release: name of the Helm release, which manifests record; empty if not installed by Helm.
    """

    mover_image: str
    mover_image_pull_policy: str = "IfNotPresent"
    mover_image_pull_secrets: tuple[str, ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()
    allowed_endpoints: tuple[str, ...] = ()
    max_movers: int = 16
    workers: int = 16
    resync_seconds: float = 600.0
    health_port: int = 8080
    metrics_port: int = 8081
    log_level: str = "info"
    lease_namespace: str | None = None
    lease_name: str = "cinderblock"
    lease_seconds: int = 15
    release: str = ""

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
        secrets = environment.get("CINDERBLOCK_MOVER_IMAGE_PULL_SECRETS", "")
        return cls(
            mover_image=image,
            mover_image_pull_policy=environment.get("CINDERBLOCK_MOVER_IMAGE_PULL_POLICY", "IfNotPresent"),
            mover_image_pull_secrets=tuple(name for name in secrets.split(",") if name),
            proxies=_proxies(environment),
            allowed_endpoints=_endpoints(environment),
            max_movers=_positive(environment, "CINDERBLOCK_MAX_MOVERS", 16),
            workers=_positive(environment, "CINDERBLOCK_WORKERS", 16),
            resync_seconds=float(_positive(environment, "CINDERBLOCK_RESYNC_SECONDS", 600)),
            health_port=_positive(environment, "CINDERBLOCK_HEALTH_PORT", 8080),
            metrics_port=_positive(environment, "CINDERBLOCK_METRICS_PORT", 8081),
            log_level=_one_of(environment, "CINDERBLOCK_LOG_LEVEL", LOG_LEVELS),
            lease_namespace=environment.get("CINDERBLOCK_LEASE_NAMESPACE") or None,
            lease_name=environment.get("CINDERBLOCK_LEASE_NAME", "cinderblock"),
            lease_seconds=_positive(environment, "CINDERBLOCK_LEASE_SECONDS", 15),
            release=environment.get("CINDERBLOCK_RELEASE", ""),
        )


def _proxies(environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the proxy variables that are set. A password in one would be readable in every mover's Job."""
    found = tuple((name, environment[name]) for name in PROXY_VARIABLES if environment.get(name))
    for name, value in found:
        if "@" in value:
            raise InvalidInput(f"{name} contains a user or password. Use a proxy that needs none, as http://host:port.")
    return found


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
