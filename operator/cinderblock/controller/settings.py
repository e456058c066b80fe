"""What a process is told by its environment, read once at the start and handed down; nothing else reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cinderblock.errors import InvalidInput

PROXY_VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
"""Variables that say by which proxy S3 servers are asked, and which of them are not."""
LOG_LEVELS = ("info", "debug", "warning", "error")


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """Settings of the operator process.

    Attributes:
        mover_image: image of mover pods; the operator's own.
        mover_image_pull_policy: Always, IfNotPresent or Never.
        mover_image_pull_secrets: names of Secrets for pulling it, in the mover's namespace.
        proxies: those of PROXY_VARIABLES that are set, with their values; movers get them too.
        max_movers: mover Jobs that may run at once in the whole cluster.
        workers: objects that are reconciled at the same time.
        resync_seconds: every object is looked at again at least this often.
        health_port: port of /healthz and /readyz.
        metrics_port: port of /metrics.
        log_level: the least severe lines that are written: debug, info, warning or error.
        lease_namespace: where the Lease is that says which replica acts; None: where this process runs.
        lease_name: its name.
        lease_seconds: its length: for so long nobody acts after a leader has died.
        release: name of the Helm release, which manifests keep; empty: not installed by Helm.
    """

    mover_image: str
    mover_image_pull_policy: str = "IfNotPresent"
    mover_image_pull_secrets: tuple[str, ...] = ()
    proxies: tuple[tuple[str, str], ...] = ()
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
        """Read CINDERBLOCK_* variables and those of proxies.

        Raises InvalidInput naming the variable that is missing or wrong.
        """
        image = environment.get("CINDERBLOCK_MOVER_IMAGE", "")
        if not image:
            raise InvalidInput("CINDERBLOCK_MOVER_IMAGE is not set: give the image that movers run, normally our own")
        secrets = environment.get("CINDERBLOCK_MOVER_IMAGE_PULL_SECRETS", "")
        return cls(
            mover_image=image,
            mover_image_pull_policy=environment.get("CINDERBLOCK_MOVER_IMAGE_PULL_POLICY", "IfNotPresent"),
            mover_image_pull_secrets=tuple(name for name in secrets.split(",") if name),
            proxies=_proxies(environment),
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
    """The variables of proxies. A user and password in one could be read in every mover's Job."""
    found = tuple((name, environment[name]) for name in PROXY_VARIABLES if environment.get(name))
    for name, value in found:
        if "@" in value:
            raise InvalidInput(f"{name} holds a user or password: give a proxy that needs none, as http://host:port")
    return found


def _one_of(environment: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    """A variable as one of ``words``, of which the first is the default."""
    text = environment.get(name, words[0])
    if text not in words:
        raise InvalidInput(f"{name} is {text!r}: give one of {', '.join(words)}")
    return text


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    """A variable as a whole number above zero."""
    text = environment.get(name, str(default))
    if not text.isdecimal() or int(text) < 1:
        raise InvalidInput(f"{name} is {text!r}: give a whole number above zero")
    return int(text)
