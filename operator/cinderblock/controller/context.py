"""What all gatherers share: the API client, the stores, the policy, the clock and the metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from pydantic import ValidationError

from cinderblock.api.meta import Object, ObjectMeta
from cinderblock.controller.cluster_identity import ClusterIdentity
from cinderblock.controller.reconcile.admission import MoverAdmission
from cinderblock.controller.reconcile.singleflight import SingleFlight
from cinderblock.controller.stores.pool import StorePool
from cinderblock.controller.stores.references import ReferenceLookups
from cinderblock.kube.client import JsonObjects, KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.observed import OperatorPolicy
from cinderblock.observability.operator_metrics import OperatorMetrics

log = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)


def wall_clock() -> datetime:
    """The instant, as this machine sees it."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Context:
    """What observers look with, and what ends are told to."""

    kube: KubeClient
    stores: StorePool
    policy: OperatorPolicy
    clock: Callable[[], datetime] = wall_clock
    metrics: OperatorMetrics = field(default_factory=OperatorMetrics)
    admission: MoverAdmission = field(default_factory=MoverAdmission)
    singleflight: SingleFlight = field(default_factory=SingleFlight)
    cluster: ClusterIdentity = field(default_factory=ClusterIdentity)
    references: ReferenceLookups = field(default_factory=ReferenceLookups)

    async def get(self, model: type[T], kind: Kind, name: str, namespace: str | None = None) -> T | None:
        """One object as a model, or None."""
        body = await self.kube.get(kind, name, namespace)
        return model.model_validate(body) if body is not None else None

    async def list(self, model: type[T], kind: Kind, namespace: str | None = None, *, labels: str = "") -> list[T]:
        """All objects as models, as `bodies`. One that does not parse is left out: it must not hide the others."""

        async def read() -> list[T]:
            return parse_all(model, await self.kube.list(kind, namespace, labels=labels))

        return await self.singleflight.do((model, kind, namespace, labels), read)

    async def bodies(self, kind: Kind, namespace: str | None = None, *, fields: str = "") -> JsonObjects:
        """All objects as they come, read once for all who ask at the same time: nobody may change them."""
        read = partial(self.kube.list, kind, namespace, fields=fields)
        return await self.singleflight.do((kind, namespace, fields), read)


def parse_all(model: type[T], bodies: list[dict[str, Any]]) -> list[T]:
    """Objects as models; one that does not parse is logged and left out."""
    parsed = []
    for body in bodies:
        try:
            parsed.append(model.model_validate(body))
        except ValidationError as error:
            metadata = ObjectMeta.model_validate(body.get("metadata", {}))
            problems = error.errors(include_input=False, include_url=False)
            log.warning("Object %s/%s does not parse: %s", metadata.namespace, metadata.name, problems)
    return parsed
