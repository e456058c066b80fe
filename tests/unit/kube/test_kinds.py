"""Paths and names of types in the API."""

from __future__ import annotations

import pytest

from cinderblock.api.crd.definitions import RESOURCES
from cinderblock.api.labels import GROUP, VERSION
from cinderblock.controller.request import OWN_KINDS
from cinderblock.errors import InvalidInput
from cinderblock.kube import kinds


@pytest.mark.parametrize(
    ("kind", "namespace", "name", "subresource", "path"),
    [
        (kinds.POD, "shop", "web", "log", "/api/v1/namespaces/shop/pods/web/log"),
        (kinds.POD, "shop", None, "", "/api/v1/namespaces/shop/pods"),
        (kinds.POD, None, None, "", "/api/v1/pods"),
        (kinds.PV, None, "pv-1", "", "/api/v1/persistentvolumes/pv-1"),
        (kinds.PV, "ignored", "pv-1", "", "/api/v1/persistentvolumes/pv-1"),
        (kinds.JOB, "shop", "move", "status", "/apis/batch/v1/namespaces/shop/jobs/move/status"),
        (kinds.POD, "shop", "../nodes", "", "/api/v1/namespaces/shop/pods/..%2Fnodes"),
    ],
)
def test_path_addresses_the_object(
    kind: kinds.Kind, namespace: str | None, name: str | None, subresource: str, path: str
) -> None:
    assert kind.path(namespace, name, subresource) == path


@pytest.mark.parametrize(
    ("kind", "namespace", "name"), [(kinds.POD, None, "web"), (kinds.POD, "shop", ""), (kinds.PV, None, "")]
)
def test_missing_name_or_namespace_never_addresses_a_collection(
    kind: kinds.Kind, namespace: str | None, name: str
) -> None:
    with pytest.raises(InvalidInput, match="without a name"):
        kind.path(namespace, name)


@pytest.mark.parametrize(("namespace", "name"), [("shop", "."), ("shop", ".."), ("..", "web"), (".", None)])
def test_step_in_a_path_is_no_name(namespace: str, name: str | None) -> None:
    """An HTTP client would remove it, and address a collection or another object."""
    with pytest.raises(InvalidInput, match="the name or namespace"):
        kinds.POD.path(namespace, name)


def test_own_kinds_match_the_definitions() -> None:
    ours = {(kind.group, kind.version, kind.plural, kind.kind) for kind in OWN_KINDS.values()}
    assert ours == {(GROUP, VERSION, resource.plural, resource.kind) for resource in RESOURCES}


def test_names_match_kubectl() -> None:
    assert kinds.JOB.resource == "jobs.batch"
    assert kinds.JOB.api_version == "batch/v1"
    assert kinds.POD.resource == "pods"
    assert kinds.POD.api_version == "v1"
