"""Which source the configuration comes from, and what a pod's ServiceAccount gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from cinderblock.errors import InvalidInput
from cinderblock.kube.config_source import InCluster, default_source
from cinderblock.kube.kubeconfig import Kubeconfig

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}


@pytest.fixture
def service_account(tmp_path: Path) -> Path:
    """A folder as the kubelet mounts it."""
    (tmp_path / "token").write_text("first\n")
    (tmp_path / "ca.crt").write_text("PEM")
    (tmp_path / "namespace").write_text("backups")
    return tmp_path


@pytest.mark.parametrize(
    ("host", "server"),
    [("10.96.0.1", "https://10.96.0.1:6443"), ("fd00::1", "https://[fd00::1]:6443")],
)
async def test_pod_uses_its_service_account(service_account: Path, host: str, server: str) -> None:
    environment = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "6443"}
    config = await InCluster(environment, str(service_account)).load()
    assert (config.server, config.token, config.ca, config.namespace) == (server, "first", b"PEM", "backups")


async def test_rotated_token_is_read_again(service_account: Path) -> None:
    source = InCluster(IN_POD, str(service_account))
    assert (await source.load()).token == "first"
    (service_account / "token").write_text("second")
    assert (await source.load()).token == "second"


async def test_gateway_needs_no_token_in_its_pod(service_account: Path) -> None:
    (service_account / "token").unlink()
    (service_account / "namespace").unlink()
    config = await InCluster(IN_POD, str(service_account), needs_token=False).load()
    assert (config.server, config.ca, config.token) == ("https://10.96.0.1:443", b"PEM", None)


@pytest.mark.parametrize(
    ("file", "cause"),
    [
        ("token", "Service token file does not exist"),
        ("ca.crt", "Service certification file does not exist"),
        ("namespace", "Cannot read .*/namespace to connect to the API server: No such file"),
    ],
)
async def test_missing_file_of_the_service_account_is_reported(service_account: Path, file: str, cause: str) -> None:
    (service_account / file).unlink()
    with pytest.raises(InvalidInput, match=cause) as caught:
        await InCluster(IN_POD, str(service_account)).load()
    assert str(service_account) in caught.value.message


def test_explicit_kubeconfig_precedes_environment_and_pod(tmp_path: Path) -> None:
    assert isinstance(default_source(IN_POD, str(tmp_path / "given")), Kubeconfig)
    assert isinstance(default_source(IN_POD | {"KUBECONFIG": "/some/config"}), Kubeconfig)
    assert isinstance(default_source(IN_POD), InCluster)


def test_kubeconfig_in_the_home_folder_is_the_last_resort(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="Cannot find a cluster: KUBECONFIG is not set"):
        default_source({"HOME": str(tmp_path)})
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("{}")
    assert isinstance(default_source({"HOME": str(tmp_path)}), Kubeconfig)
