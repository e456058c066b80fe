"""Credentials from a pod's service account, from kubeconfigs and from credential plugins."""

from __future__ import annotations

import base64
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.kube.config_source import InCluster, default_source
from cinderblock.kube.kubeconfig import Kubeconfig

SECRET = "eyJ-very-secret"


def kubeconfig(
    path: Path,
    user: dict[str, Any],
    *,
    cluster: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    name: str = "main",
) -> Path:
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **(context or {})}}],
        "clusters": [{"name": name, "cluster": {"server": "https://api.example.com:6443/", **(cluster or {})}}],
        "users": [{"name": name, "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def plugin(path: Path, status: dict[str, Any], *, code: int = 0) -> dict[str, Any]:
    """The exec entry of a plugin that counts its runs, writes down what it was asked, and answers ``status``."""
    answer = json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
    path.write_text(
        "import os, sys\n"
        f"open({str(path.with_suffix('.runs'))!r}, 'a').write(os.environ['KUBERNETES_EXEC_INFO'] + chr(10))\n"
        f"print({answer!r})\n"
        f"print({SECRET!r}, os.environ.get('EXTRA'), sys.argv[1:], file=sys.stderr)\n"
        f"sys.exit({code})\n"
    )
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(path), "--login"],
        "env": [{"name": "EXTRA", "value": "1"}],
        "provideClusterInfo": True,
    }


def runs(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.with_suffix(".runs").read_text().splitlines()]


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("PEM")
    (tmp_path / "namespace").write_text("backups")
    return tmp_path


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.96.0.1", "https://10.96.0.1:6443"), ("fd00::1", "https://[fd00::1]:6443")],
)
async def test_a_pod_shows_its_service_accounts_token(service_account: Path, host: str, server: str) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "6443"}
    credentials = await InCluster(environment, str(service_account)).load()
    assert credentials.server == server
    assert credentials.token == "first"
    assert credentials.ca == b"PEM"
    assert credentials.namespace == "backups"


async def test_a_rotated_token_is_seen(service_account: Path) -> None:
    source = InCluster({"KUBERNETES_SERVICE_HOST": "h"}, str(service_account))
    assert (await source.load()).token == "first"
    (service_account / "token").write_text("second")
    assert (await source.load()).token == "second"


async def test_a_pod_without_a_token_says_which_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"ca\.crt, which the connection to the API server needs: No such file"):
        await InCluster({"KUBERNETES_SERVICE_HOST": "h"}, str(tmp_path)).load()


async def test_a_kubeconfig_gives_server_token_and_namespace(tmp_path: Path) -> None:
    cluster = {"tls-server-name": "inner", "proxy-url": "http://proxy:3128", "insecure-skip-tls-verify": True}
    path = kubeconfig(tmp_path / "config", {"token": SECRET}, cluster=cluster, context={"namespace": "shop"})
    credentials = await Kubeconfig((str(path),)).load()
    assert credentials.server == "https://api.example.com:6443"
    assert credentials.token == SECRET
    assert credentials.namespace == "shop"
    assert credentials.server_name == "inner"
    assert credentials.proxy == "http://proxy:3128"
    assert credentials.insecure


async def test_files_are_looked_up_from_the_kubeconfigs_own_folder(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    for name in ("ca", "cert", "key", "token"):
        (tmp_path / "pki" / name).write_text(f"{name}\n")
    user = {"client-certificate": "pki/cert", "client-key": "pki/key", "tokenFile": "pki/token", "token": "older"}
    path = kubeconfig(tmp_path / "config", user, cluster={"certificate-authority": "pki/ca"})
    credentials = await Kubeconfig((str(path),)).load()
    assert (credentials.ca, credentials.certificate, credentials.private_key) == (b"ca\n", b"cert\n", b"key\n")
    assert credentials.token == "token"


async def test_embedded_data_wins_over_files(tmp_path: Path) -> None:
    cluster = {"certificate-authority-data": base64.b64encode(b"inline").decode(), "certificate-authority": "absent"}
    path = kubeconfig(tmp_path / "config", {"token": SECRET}, cluster=cluster)
    assert (await Kubeconfig((str(path),)).load()).ca == b"inline"


async def test_of_several_files_the_first_entry_of_a_name_counts(tmp_path: Path) -> None:
    first = kubeconfig(tmp_path / "a", {"token": "one"}, name="one")
    second = kubeconfig(tmp_path / "b", {"token": "two"}, name="two")
    third = kubeconfig(tmp_path / "c", {"token": "three"}, name="one")
    paths = tuple(map(str, (tmp_path / "absent", first, second, third)))
    assert (await Kubeconfig(paths).load()).token == "one"
    assert (await Kubeconfig(paths, "two").load()).token == "two"


@pytest.mark.parametrize(
    ("user", "complaint"),
    [
        ({"auth-provider": {"name": "gcp"}}, "uses auth-provider: give a token"),
        ({"username": "u", "password": SECRET}, "uses username, password: give a token"),
        ({"token": SECRET, "as": "admin"}, "uses as: give a token"),
        ({"client-certificate-data": "no base64!"}, "client-certificate-data is not base64"),
        ({"tokenFile": "absent"}, "absent, which the connection to the API server needs"),
    ],
)
async def test_what_would_act_as_somebody_else_is_refused(tmp_path: Path, user: dict[str, Any], complaint: str) -> None:
    path = kubeconfig(tmp_path / "config", user)
    with pytest.raises(InvalidInput, match=complaint) as caught:
        await Kubeconfig((str(path),)).load()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not YAML"),
        ("- 1", "it holds no mapping"),
        ("current-context: main", "No context 'main' among the contexts"),
        ("{current-context: m, contexts: [{name: m, context: {cluster: c}}]}", "No cluster 'c' among the clusters"),
        (
            "{current-context: m, contexts: [{name: m, context: {cluster: c}}], clusters: [{name: c, cluster: {}}]}",
            "clusters .c. in .* has no server",
        ),
    ],
)
async def test_a_broken_kubeconfig_says_what_is_missing(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "config").write_text(content)
    with pytest.raises(InvalidInput, match=complaint):
        await Kubeconfig((str(tmp_path / "config"),)).load()


async def test_a_plugin_gives_a_token_and_is_asked_again_only_when_it_was_refused(tmp_path: Path) -> None:
    script = tmp_path / "plugin.py"
    path = kubeconfig(tmp_path / "config", {"exec": plugin(script, {"token": SECRET})})
    source = Kubeconfig((str(path),))
    assert (await source.load()).token == SECRET
    assert (await source.load()).token == SECRET
    assert len(runs(script)) == 1
    await source.load(renew=True)
    assert len(runs(script)) == 2


async def test_a_plugin_is_told_about_the_cluster(tmp_path: Path) -> None:
    script = tmp_path / "plugin.py"
    cluster = {"certificate-authority-data": base64.b64encode(b"CA").decode()}
    path = kubeconfig(tmp_path / "config", {"exec": plugin(script, {"token": SECRET})}, cluster=cluster)
    await Kubeconfig((str(path),)).load()
    (asked,) = runs(script)
    assert asked["kind"] == "ExecCredential"
    assert asked["spec"] == {
        "interactive": False,
        "cluster": {"server": "https://api.example.com:6443/", "certificate-authority-data": "Q0E="},
    }


@pytest.mark.parametrize(("minutes", "asked"), [(30, 1), (0.5, 2)])
async def test_a_plugin_is_asked_again_a_minute_before_its_answer_expires(
    tmp_path: Path, minutes: float, asked: int
) -> None:
    script = tmp_path / "plugin.py"
    expiry = (datetime.now(UTC) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
    status = {"token": SECRET, "expirationTimestamp": expiry}
    source = Kubeconfig((str(kubeconfig(tmp_path / "config", {"exec": plugin(script, status)})),))
    await source.load()
    await source.load()
    assert len(runs(script)) == asked


async def test_a_plugin_may_give_a_certificate(tmp_path: Path) -> None:
    status = {"clientCertificateData": "CERT", "clientKeyData": "KEY"}
    path = kubeconfig(tmp_path / "config", {"exec": plugin(tmp_path / "plugin.py", status)})
    credentials = await Kubeconfig((str(path),)).load()
    assert (credentials.certificate, credentials.private_key, credentials.token) == (b"CERT", b"KEY", None)


@pytest.mark.parametrize(
    ("status", "code", "complaint"),
    [({"token": SECRET}, 1, "ended with code 1"), ({}, 0, "gave neither a token nor a certificate")],
)
async def test_a_plugin_that_fails_is_named_and_its_output_is_not_repeated(
    tmp_path: Path, status: dict[str, Any], code: int, complaint: str
) -> None:
    path = kubeconfig(tmp_path / "config", {"exec": plugin(tmp_path / "plugin.py", status, code=code)})
    with pytest.raises(AccessDenied, match=complaint) as caught:
        await Kubeconfig((str(path),)).load()
    assert SECRET not in str(caught.value)


async def test_a_plugin_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = {"apiVersion": "client.authentication.k8s.io/v1", "command": "./no-such-plugin"}
    path = kubeconfig(tmp_path / "config", {"exec": entry})
    with pytest.raises(AccessDenied, match="no-such-plugin cannot be run: No such file"):
        await Kubeconfig((str(path),)).load()


async def test_credentials_do_not_show_their_secrets(tmp_path: Path) -> None:
    path = kubeconfig(tmp_path / "config", {"token": SECRET}, cluster={"proxy-url": f"http://u:{SECRET}@proxy"})
    assert SECRET not in repr(await Kubeconfig((str(path),)).load())


def test_an_explicit_kubeconfig_comes_before_the_environment_and_that_before_the_pod(tmp_path: Path) -> None:
    in_pod = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
    assert isinstance(default_source(in_pod, str(tmp_path / "given")), Kubeconfig)
    assert isinstance(default_source(in_pod | {"KUBECONFIG": "/some/config"}), Kubeconfig)
    assert isinstance(default_source(in_pod), InCluster)


def test_the_home_folders_kubeconfig_is_the_last_resort(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no cluster to talk to: set KUBECONFIG"):
        default_source({"HOME": str(tmp_path)})
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("{}")
    assert isinstance(default_source({"HOME": str(tmp_path)}), Kubeconfig)
