"""Settings of the operator, read from its environment."""

from __future__ import annotations

import pytest

from cinderblock.controller.settings import OperatorSettings
from cinderblock.errors import InvalidInput

IMAGE = {"CINDERBLOCK_MOVER_IMAGE": "example/cinderblock:1"}


def test_mover_image_is_required() -> None:
    with pytest.raises(InvalidInput, match="CINDERBLOCK_MOVER_IMAGE is not set"):
        OperatorSettings.from_environment({})


def test_other_settings_have_defaults() -> None:
    settings = OperatorSettings.from_environment(IMAGE)
    assert settings.mover_image == "example/cinderblock:1"
    assert (settings.max_movers, settings.max_movers_per_namespace) == (16, 8)
    assert settings.mover_image_pull_secrets == ()


@pytest.mark.parametrize(("most", "half"), [("1", 1), ("3", 1), ("40", 20)])
def test_namespace_gets_half_of_the_movers(most: str, half: int) -> None:
    settings = OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_MAX_MOVERS": most})
    assert settings.max_movers_per_namespace == half


def test_limits_on_movers_are_read() -> None:
    assert OperatorSettings.from_environment(IMAGE).mover_pod_security == "baseline"
    given = {"CINDERBLOCK_MOVER_POD_SECURITY": "restricted", "CINDERBLOCK_ROOT_MOVERS_REQUIRE_OPT_IN": "true"}
    settings = OperatorSettings.from_environment(IMAGE | given)
    assert (settings.mover_pod_security, settings.root_movers_require_opt_in) == ("restricted", True)
    assert not settings.allow_system_priority
    allowed = OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_ALLOW_SYSTEM_PRIORITY": "true"})
    assert allowed.allow_system_priority
    with pytest.raises(InvalidInput, match="CINDERBLOCK_MOVER_POD_SECURITY"):
        OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_MOVER_POD_SECURITY": "none"})


def test_broker_has_tls_and_a_secret_with_its_authority() -> None:
    given = {"CINDERBLOCK_BROKER_URL": "https://broker.system.svc:8778", "CINDERBLOCK_BROKER_SECRET": "broker-tls"}
    settings = OperatorSettings.from_environment(IMAGE | given)
    assert (settings.broker_url, settings.broker_secret) == ("https://broker.system.svc:8778", "broker-tls")
    for url in ("http://broker.system.svc", "https://broker/path", "https://me:you@broker"):
        with pytest.raises(InvalidInput, match="CINDERBLOCK_BROKER_URL"):
            OperatorSettings.from_environment(IMAGE | given | {"CINDERBLOCK_BROKER_URL": url})
    with pytest.raises(InvalidInput, match="CINDERBLOCK_BROKER_SECRET"):
        OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_BROKER_URL": given["CINDERBLOCK_BROKER_URL"]})


def test_cluster_stores_are_worked_on_unless_told_otherwise() -> None:
    assert OperatorSettings.from_environment(IMAGE).cluster_stores
    assert not OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_CLUSTER_STORES": "false"}).cluster_stores


def test_operator_of_some_namespaces_leaves_cluster_stores_alone() -> None:
    watching = IMAGE | {"CINDERBLOCK_WATCH_NAMESPACES": "shop", "CINDERBLOCK_CLUSTER_STORES": "true"}
    assert not OperatorSettings.from_environment(watching).cluster_stores


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_invalid_number_is_rejected_by_name(value: str) -> None:
    with pytest.raises(InvalidInput, match="CINDERBLOCK_MAX_MOVERS"):
        OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_MAX_MOVERS": value})


def test_proxy_with_a_password_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="HTTPS_PROXY contains a user or password"):
        OperatorSettings.from_environment(IMAGE | {"HTTPS_PROXY": "http://user:geheim@proxy:3128"})


def test_labels_and_annotations_of_children_are_json() -> None:
    given = {"CINDERBLOCK_MOVER_LABELS": '{"team":"b","a":"x"}', "CINDERBLOCK_MOVER_ANNOTATIONS": '{"mesh":"no"}'}
    settings = OperatorSettings.from_environment(IMAGE | given)
    assert settings.mover_labels == (("a", "x"), ("team", "b"))
    assert settings.mover_annotations == (("mesh", "no"),)


@pytest.mark.parametrize(
    "text", ["team=b", "[1]", '{"a":1}', '{"cinderblock.io/owner-uid":"x"}', '{"app.kubernetes.io/managed-by":"x"}']
)
def test_malformed_or_reserved_labels_are_rejected(text: str) -> None:
    with pytest.raises(InvalidInput, match="CINDERBLOCK_MOVER_LABELS"):
        OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_MOVER_LABELS": text})


def test_pull_secrets_are_separated_by_commas() -> None:
    settings = OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_MOVER_IMAGE_PULL_SECRETS": "a,b"})
    assert settings.mover_image_pull_secrets == ("a", "b")


def test_allowed_endpoints_that_cannot_be_read_do_not_allow_all() -> None:
    variable = "CINDERBLOCK_ALLOWED_ENDPOINTS"
    assert OperatorSettings.from_environment(IMAGE | {variable: "a.example,10.0.0.0/8"}).allowed_endpoints == (
        "a.example",
        "10.0.0.0/8",
    )
    assert OperatorSettings.from_environment(IMAGE).allowed_endpoints == ()
    with pytest.raises(InvalidInput, match=r"s3\.\*\.com"):
        OperatorSettings.from_environment(IMAGE | {variable: "a.example,s3.*.com"})


@pytest.mark.parametrize("name", ["", "Content-Type", "host", "a b", "x\ny"])
def test_webhook_cannot_replace_headers_of_the_request(name: str) -> None:
    given = {"CINDERBLOCK_WEBHOOK_URL": "https://hooks.example", "CINDERBLOCK_WEBHOOK_HEADER": name}
    with pytest.raises(InvalidInput, match="CINDERBLOCK_WEBHOOK_HEADER"):
        OperatorSettings.from_environment(IMAGE | given)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "1e9", "\u0663", "1234567"])
def test_limits_of_alerts_are_whole_numbers(text: str) -> None:
    given = {"CINDERBLOCK_WEBHOOK_URL": "https://hooks.example", "CINDERBLOCK_ALERT_MAX_BACKUP_AGE_HOURS": text}
    with pytest.raises(InvalidInput, match="CINDERBLOCK_ALERT_MAX_BACKUP_AGE_HOURS"):
        OperatorSettings.from_environment(IMAGE | given)
