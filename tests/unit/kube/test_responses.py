"""The errors that responses of the API server mean, and what they quote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cinderblock.errors import (
    AccessDenied,
    AlreadyExists,
    CinderblockError,
    Conflict,
    InvalidInput,
    KubeUnavailable,
    NotFound,
)
from cinderblock.kube.kinds import SECRET, VOLUME_BACKUP, Kind
from cinderblock.kube.responses import RequestInfo, Response, raise_for_status

PATCH = RequestInfo("patch", VOLUME_BACKUP, "shop", "nightly", "status")


def failure(code: int, message: str = "", reason: str = "", causes: list[dict[str, Any]] | None = None) -> Response:
    status = {"kind": "Status", "code": code, "message": message, "reason": reason, "details": {"causes": causes}}
    return Response(code, json.dumps(status).encode())


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (failure(400), InvalidInput),
        (failure(401), AccessDenied),
        (failure(403), AccessDenied),
        (failure(404), NotFound),
        (failure(405), InvalidInput),
        (failure(409, reason="AlreadyExists"), AlreadyExists),
        (failure(409, reason="Conflict"), Conflict),
        (failure(410, reason="Expired"), KubeUnavailable),
        (failure(413), InvalidInput),
        (failure(415), InvalidInput),
        (failure(422, reason="Invalid"), InvalidInput),
        (failure(422, causes=[{"field": "metadata.uid", "message": "field is immutable"}]), Conflict),
        (failure(429), KubeUnavailable),
        (failure(500), KubeUnavailable),
        (failure(500, ".status.foo: field not declared in schema"), InvalidInput),
        (failure(503), KubeUnavailable),
        (failure(504), KubeUnavailable),
        (Response(502, b"<html>Bad Gateway</html>"), KubeUnavailable),
        (Response(404, b""), NotFound),
        (Response(403, b"[]"), AccessDenied),
    ],
)
def test_status_code_selects_the_error(response: Response, error: type[CinderblockError]) -> None:
    with pytest.raises(CinderblockError) as caught:
        raise_for_status(PATCH, response)
    assert type(caught.value) is error
    assert "patch volumebackups.cinderblock.io/status shop/nightly" in caught.value.message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ('pods is forbidden: User "x" cannot list resource "pods"', "AccessDenied"),
        ('jobs.batch "m" is forbidden: exceeded quota: small, requested: count/jobs=1', "QuotaExceeded"),
        ("insufficient quota to match these scopes: [{PriorityClass In [high]}]", "QuotaExceeded"),
        ("insufficient quota to consume: requests.storage", "QuotaExceeded"),
        ("status unknown for quota: small, resources: requests.storage", "QuotaExceeded"),
        ('jobs.batch "m" is forbidden: failed quota: strict: must specify count', "QuotaExceeded"),
        ("maximum storage usage per PersistentVolumeClaim is 1Gi, but request is 5Gi", "LimitRangeViolated"),
        ('pods "m" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot', "PodSecurityViolation"),
        ("unable to create new content in namespace shop because it is being terminated", "NamespaceTerminating"),
    ],
)
def test_reason_names_what_forbids_a_request(message: str, reason: str) -> None:
    with pytest.raises(AccessDenied) as caught:
        raise_for_status(PATCH, failure(403, message))
    assert caught.value.reason == reason
    assert caught.value.message.endswith(message)


@pytest.mark.parametrize("code", [400, 403, 404, 409, 422, 500])
@pytest.mark.parametrize(
    "denial",
    [
        "jobs.batch \"m\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'p' denied request: no label",
        'admission webhook "labels.example.org" denied the request: no label',
    ],
)
def test_denial_of_a_policy_is_not_an_invalid_value(denial: str, code: int) -> None:
    """A webhook chooses the code, and one that chooses none denies with 400."""
    with pytest.raises(AccessDenied) as caught:
        raise_for_status(PATCH, failure(code, denial))
    assert "no label" in caught.value.message


def test_failing_webhook_denies_nothing() -> None:
    failing = 'Internal error occurred: failed calling webhook "labels.example.org": context deadline exceeded'
    with pytest.raises(KubeUnavailable):
        raise_for_status(PATCH, failure(500, failing))


def test_unknown_credentials_have_their_own_reason() -> None:
    with pytest.raises(AccessDenied) as caught:
        raise_for_status(PATCH, failure(401))
    assert caught.value.reason == "Unauthorized"


def test_causes_are_added_unless_the_message_has_them() -> None:
    causes = [{"field": "spec.a", "message": "too long"}, {"field": "spec.b", "message": "too short"}]
    with pytest.raises(InvalidInput) as caught:
        raise_for_status(PATCH, failure(422, "it is invalid: too long", causes=causes))
    assert caught.value.message.endswith(": it is invalid: too long; too short")


def test_long_message_is_cut() -> None:
    with pytest.raises(InvalidInput) as caught:
        raise_for_status(PATCH, failure(422, "x" * 5000))
    assert len(caught.value.message) < 1200
    assert caught.value.message.endswith("…")


def test_message_about_a_secret_is_not_passed_on() -> None:
    with pytest.raises(InvalidInput) as caught:
        raise_for_status(RequestInfo("create", SECRET, "shop", "s3"), failure(422, 'Invalid value: "hunter2"'))
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[1]", b'"text"', b"\xff"])
def test_response_without_a_json_object_is_unavailable(body: bytes) -> None:
    with pytest.raises(KubeUnavailable, match="not from the API server"):
        Response(200, body).json()


@pytest.mark.parametrize(
    ("info", "text"),
    [
        (RequestInfo("list", VOLUME_BACKUP), "list volumebackups.cinderblock.io"),
        (RequestInfo("list", VOLUME_BACKUP, "shop"), "list volumebackups.cinderblock.io shop"),
        (RequestInfo("get", Kind("", "v1", "nodes", "Node", namespaced=False), None, "one"), "get nodes one"),
    ],
)
def test_request_describes_itself(info: RequestInfo, text: str) -> None:
    assert info.describe() == text


@pytest.mark.parametrize(("verb", "is_write"), [("get", False), ("list", False), ("create", True), ("delete", True)])
def test_only_get_and_list_are_reads(verb: str, is_write: bool) -> None:
    assert RequestInfo(verb, VOLUME_BACKUP).is_write is is_write
