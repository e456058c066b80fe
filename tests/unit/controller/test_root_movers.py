"""Whether the namespace of a store lets movers run as root, read only if that matters."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cinderblock.api.labels import ROOT_MOVERS_ANNOTATION
from cinderblock.controller.context import Context
from cinderblock.controller.reconcile.gather import probe_store
from cinderblock.controller.stores.pool import StorePool
from cinderblock.kube import kinds
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.observed import MoverSettings, OperatorPolicy, StoreLookup
from tests.support.simulation.observed_builders import a_store


class Api:
    """An API server that knows one namespace."""

    def __init__(self, annotations: dict[str, str] | None) -> None:
        self.read: list[str] = []
        self._annotations = annotations

    async def get(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, Any] | None:
        """Return the namespace."""
        assert (kind, namespace) == (kinds.NAMESPACE, None)
        self.read.append(name)
        if self._annotations is None:
            return None
        return {"metadata": {"name": name, "annotations": self._annotations}}


class Stores:
    """A pool of stores that answer."""

    async def check(self, *_: object) -> None:
        """Find nothing wrong."""


async def _lookup(api: Api, *, opt_in: bool = True, **mover: Any) -> StoreLookup:
    policy = OperatorPolicy(MoverSettings("example/cinderblock:1", root_requires_opt_in=opt_in))
    context = Context(cast("KubeClient", api), cast("StorePool", Stores()), policy)
    return await probe_store(context, StoreLookup(a_store(mover=mover)), "volumebackups")


@pytest.mark.parametrize(
    ("annotations", "allowed"),
    [({ROOT_MOVERS_ANNOTATION: "true"}, True), ({ROOT_MOVERS_ANNOTATION: "yes"}, False), ({}, False), (None, False)],
)
async def test_annotation_of_the_namespace_decides(annotations: dict[str, str] | None, allowed: bool) -> None:
    api = Api(annotations)
    assert (await _lookup(api)).allows_root == allowed
    assert api.read == ["shop"]


async def test_namespace_is_not_read_if_nothing_depends_on_it() -> None:
    api = Api({})
    assert (await _lookup(api, opt_in=False)).allows_root
    assert (await _lookup(api, securityContext={"runAsUser": 1000})).allows_root
    assert api.read == []
