"""The gateway in the chart."""

from __future__ import annotations

import pytest

from cinderblock.cli.commands import run_gateway
from cinderblock.cli.main import load, make_command_parser
from tests.support.cluster.chart import CHART, GATEWAY, helm, of_kind, render

pytestmark = pytest.mark.integration


def test_gateway_is_disabled_by_default() -> None:
    assert not [item for item in render() if "gateway" in item["metadata"]["name"]]


def test_its_pods_have_no_token_and_its_account_has_no_rights() -> None:
    objects = render(*GATEWAY)
    (deployment,) = [d for d in of_kind(objects, "Deployment") if d["metadata"]["name"].endswith("-gateway")]
    assert deployment["spec"]["replicas"] == 2
    pod = deployment["spec"]["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    account = pod["serviceAccountName"]
    for kind in ("ClusterRoleBinding", "RoleBinding"):
        for binding in of_kind(objects, kind):
            assert account not in {subject["name"] for subject in binding["subjects"]}
    assert not [volume for volume in pod["volumes"] if "projected" in volume]


def test_its_arguments_are_those_of_the_command() -> None:
    objects = render(*GATEWAY, "gateway.publicUrl=https://cinder.example.org")
    (deployment,) = [d for d in of_kind(objects, "Deployment") if d["metadata"]["name"].endswith("-gateway")]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    name, *arguments = container["args"]
    parsed = make_command_parser(name, load(name)).parse_args(arguments)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"api": parsed.port, "health": parsed.health_port}
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert parsed.tls_certificate_file.rpartition("/")[0] in mounts
    assert parsed.public_url == "https://cinder.example.org"


def test_service_and_ingress_lead_to_its_pods() -> None:
    objects = render(*GATEWAY)
    (deployment,) = [d for d in of_kind(objects, "Deployment") if d["metadata"]["name"].endswith("-gateway")]
    (service,) = [s for s in of_kind(objects, "Service") if s["metadata"]["name"].endswith("-gateway")]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (ingress,) = of_kind(objects, "Ingress")
    (rule,) = ingress["spec"]["rules"]
    backend = rule["http"]["paths"][0]["backend"]["service"]
    assert (backend["name"], backend["port"]["number"]) == (
        service["metadata"]["name"],
        service["spec"]["ports"][0]["port"],
    )


INGRESS = ("gateway.enabled=true", "gateway.ingress.enabled=true", "gateway.ingress.host=x.example")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (("gateway.enabled=true", "gateway.service.type=LoadBalancer"), "gateway.tls.secretName"),
        (("gateway.enabled=true", "gateway.service.type=NodePort"), "gateway.tls.secretName"),
        (INGRESS, "gateway.ingress.tlsSecretName"),
        ((*INGRESS, "gateway.tls.secretName=t"), "gateway.ingress.tlsSecretName"),
    ],
)
def test_way_in_from_outside_needs_tls_unless_waived_by_name(settings: tuple[str, ...], named: str) -> None:
    options = [f"--set={setting}" for setting in settings]
    done = helm("template", "cinderblock", str(CHART), *options)
    assert done.returncode != 0
    assert named in done.stderr
    assert "gateway.allowPlaintext=true" in done.stderr
    assert of_kind(render(*settings, "gateway.allowPlaintext=true"), "Deployment")


@pytest.mark.parametrize(
    "settings",
    [
        ("gateway.enabled=true",),
        ("gateway.service.type=LoadBalancer",),
        ("gateway.enabled=true", "gateway.service.type=LoadBalancer", "gateway.tls.secretName=t"),
        (*INGRESS, "gateway.ingress.tlsSecretName=t"),
    ],
)
def test_way_in_with_tls_or_from_inside_is_rendered(settings: tuple[str, ...]) -> None:
    assert render(*settings)


def test_limits_and_trusted_proxies_reach_the_process() -> None:
    objects = render(*GATEWAY, "gateway.trustedProxies={10.244.0.0/16,fd00::/8}", "gateway.connectionsPerClient=7")
    (deployment,) = [d for d in of_kind(objects, "Deployment") if d["metadata"]["name"].endswith("-gateway")]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    name, *arguments = container["args"]
    settings = run_gateway.settings_from(make_command_parser(name, load(name)).parse_args(arguments))
    assert [str(network) for network in settings.trusted_proxies] == ["10.244.0.0/16", "fd00::/8"]
    assert settings.connections_per_client == 7


def test_service_keeps_client_addresses_if_asked() -> None:
    local = ("gateway.service.type=LoadBalancer", "gateway.service.externalTrafficPolicy=Local")
    (service,) = [s for s in of_kind(render(*GATEWAY, *local), "Service") if s["metadata"]["name"].endswith("-gateway")]
    assert service["spec"]["externalTrafficPolicy"] == "Local"
