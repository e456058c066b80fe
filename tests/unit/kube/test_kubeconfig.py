"""Kubeconfig files: kubectl's rules, and the faults of the ``kubernetes`` package's loader that must not show."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.kube.kubeconfig import Kubeconfig
from cinderblock.kube.rest_config import RestConfig
from tests.support.cluster.kubeconfigs import SECRET, plugin_requests, write_kubeconfig, write_plugin


async def load(*paths: Path, context: str | None = None) -> RestConfig:
    return await Kubeconfig(tuple(map(str, paths)), context).load()


async def test_kubeconfig_gives_server_token_and_options(tmp_path: Path) -> None:
    cluster = {"tls-server-name": "inner", "proxy-url": "http://proxy:3128", "insecure-skip-tls-verify": True}
    path = write_kubeconfig(tmp_path / "config", {"token": SECRET}, cluster=cluster, context={"namespace": "shop"})
    assert await load(path) == RestConfig(
        server="https://api.example.com:6443",
        token=SECRET,
        insecure=True,
        server_name="inner",
        proxy="http://proxy:3128",
        namespace="shop",
    )


async def test_relative_paths_start_at_the_kubeconfig(tmp_path: Path) -> None:
    (tmp_path / "pki").mkdir()
    for name in ("ca", "cert", "key", "token"):
        (tmp_path / "pki" / name).write_text(f"{name}\n")
    user = {"client-certificate": "pki/cert", "client-key": "pki/key", "tokenFile": "pki/token"}
    config = await load(write_kubeconfig(tmp_path / "config", user, cluster={"certificate-authority": "pki/ca"}))
    assert (config.ca, config.certificate, config.private_key) == (b"ca\n", b"cert\n", b"key\n")
    assert config.token == "token"


async def test_paths_of_a_user_start_at_the_file_of_the_user(tmp_path: Path) -> None:
    """The package resolves them from the folder of the cluster's file."""
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "cert").write_text("cert")
    (tmp_path / "users" / "key").write_text("key")
    user = {"client-certificate": "cert", "client-key": "key"}
    users = write_kubeconfig(tmp_path / "users" / "config", user, name="other")
    clusters = write_kubeconfig(tmp_path / "config", {}, context={"user": "other"})
    config = await load(clusters, users)
    assert (config.certificate, config.private_key) == (b"cert", b"key")


async def test_embedded_data_precedes_files(tmp_path: Path) -> None:
    cluster = {"certificate-authority-data": base64.b64encode(b"inline").decode(), "certificate-authority": "absent"}
    assert (await load(write_kubeconfig(tmp_path / "config", {"token": SECRET}, cluster=cluster))).ca == b"inline"


async def test_no_embedded_key_is_left_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package writes embedded keys to the temporary folder until the process ends."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    data = base64.b64encode(SECRET.encode()).decode()
    path = write_kubeconfig(tmp_path / "config", {"client-certificate-data": data, "client-key-data": data})
    assert (await load(path)).private_key == SECRET.encode()
    assert list(folder.iterdir()) == []


async def test_token_file_precedes_the_token_and_is_read_again(tmp_path: Path) -> None:
    """The package prefers the token, and does not see that the file has changed."""
    (tmp_path / "token").write_text("first\n")
    source = Kubeconfig((str(write_kubeconfig(tmp_path / "config", {"tokenFile": "token", "token": "old"})),))
    assert (await source.load()).token == "first"
    (tmp_path / "token").write_text("second\n")
    assert (await source.load()).token == "second"


async def test_first_entry_of_a_name_counts(tmp_path: Path) -> None:
    """The package takes the current context of the last file."""
    first = write_kubeconfig(tmp_path / "a", {"token": "one"}, name="one")
    second = write_kubeconfig(tmp_path / "b", {"token": "two"}, name="two")
    third = write_kubeconfig(tmp_path / "c", {"token": "three"}, name="one")
    paths = (tmp_path / "absent", first, second, third)
    assert (await load(*paths)).token == "one"
    assert (await load(*paths, context="two")).token == "two"


async def test_context_without_a_user_is_anonymous(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "config", {"token": SECRET}, context={"user": ""})
    config = await load(path)
    assert (config.token, config.certificate) == (None, None)


@pytest.mark.parametrize(
    ("user", "cause"),
    [
        ({"auth-provider": {"name": "gcp"}}, "auth-provider is not supported"),
        ({"username": "u", "password": SECRET}, "username, password is not supported"),
        ({"token": SECRET, "as": "admin"}, "Cannot use the user 'main' of .*: as is not supported"),
        ({"token": SECRET, "as-uid": "u"}, "as-uid is not supported"),
        ({"token": SECRET, "as-groups": ["g"]}, "as-groups is not supported"),
        ({"token": SECRET, "as-user-extra": {"a": ["b"]}}, "as-user-extra is not supported"),
        ({"client-certificate-data": "no base64!"}, "client-certificate-data is not base64"),
        ({"tokenFile": "absent"}, "Cannot read .*/absent to connect to the API server: No such file"),
        ({"client-certificate": "absent"}, "Cannot use the user 'main' .*/absent"),
    ],
)
async def test_impersonation_is_rejected(tmp_path: Path, user: dict[str, Any], cause: str) -> None:
    """The package ignores impersonation, and would act as the user behind it."""
    with pytest.raises(InvalidInput, match=cause) as caught:
        await load(write_kubeconfig(tmp_path / "config", user))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("{", "it is not YAML"),
        ("- 1", "it is not a kubeconfig"),
        ("", "it is not a kubeconfig"),
        ("users: 5", "it is not a kubeconfig"),
        (f"users: [{{user: {{token: {SECRET}}}}}, {{name: n}}]", "it is not a kubeconfig"),
        ("current-context: main", "it has no context named 'main'"),
        ("contexts: []", "it has no context named ''"),
        ("{current-context: m, contexts: [{name: m, context: {cluster: c}}]}", "it has no cluster named 'c'"),
        (
            "{current-context: m, contexts: [{name: m, context: {cluster: c}}], clusters: [{name: c, cluster: {}}]}",
            "Cannot use the cluster 'c' of the kubeconfig .*: it has no server",
        ),
        ("{current-context: m, contexts: [{name: m, context: 5}]}", "it is not a mapping"),
    ],
)
async def test_broken_kubeconfig_names_the_fault(tmp_path: Path, content: str, cause: str) -> None:
    """The package's errors quote whole entries, with their tokens."""
    (tmp_path / "config").write_text(content)
    with pytest.raises(InvalidInput, match=cause) as caught:
        await load(tmp_path / "config")
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert SECRET not in caught.value.message


async def test_missing_kubeconfig_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"Cannot load the kubeconfig .*/absent: no such file"):
        await load(tmp_path / "absent")


async def test_missing_user_is_an_error_and_not_anonymous(tmp_path: Path) -> None:
    """The package would continue without credentials."""
    path = write_kubeconfig(tmp_path / "config", {"token": SECRET}, context={"user": "absent"})
    with pytest.raises(InvalidInput, match="it has no user named 'absent'"):
        await load(path)


async def test_config_hides_its_secrets(tmp_path: Path) -> None:
    cluster = {"proxy-url": f"http://u:{SECRET}@proxy"}
    assert SECRET not in repr(await load(write_kubeconfig(tmp_path / "config", {"token": SECRET}, cluster=cluster)))


async def test_plugin_gives_the_token(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "config", {"exec": write_plugin(tmp_path / "plugin.py", {"token": SECRET})})
    assert (await load(path)).token == SECRET


async def test_failed_plugin_is_an_error_and_not_anonymous(tmp_path: Path) -> None:
    """The package would log the failure and continue without credentials."""
    entry = write_plugin(tmp_path / "plugin.py", {"token": SECRET}, code=1)
    with pytest.raises(AccessDenied, match="ended with code 1"):
        await load(write_kubeconfig(tmp_path / "config", {"exec": entry}))


async def test_plugin_does_not_run_if_there_is_a_token(tmp_path: Path) -> None:
    entry = {"command": "./no-such-plugin"}
    assert (await load(write_kubeconfig(tmp_path / "config", {"exec": entry, "token": "static"}))).token == "static"


async def test_plugin_gets_the_cluster(tmp_path: Path) -> None:
    script = tmp_path / "plugin.py"
    cluster = {"certificate-authority-data": base64.b64encode(b"CA").decode(), "tls-server-name": "inner"}
    await load(
        write_kubeconfig(tmp_path / "config", {"exec": write_plugin(script, {"token": SECRET})}, cluster=cluster)
    )
    (request,) = plugin_requests(script)
    assert request["kind"] == "ExecCredential"
    assert request["spec"] == {
        "interactive": False,
        "cluster": {
            "server": "https://api.example.com:6443/",
            "tls-server-name": "inner",
            "certificate-authority-data": "Q0E=",
        },
    }


async def test_command_with_a_slash_is_relative_to_the_kubeconfig(tmp_path: Path) -> None:
    script = tmp_path / "plugin"
    script.write_text('#!/bin/sh\necho \'{"status": {"token": "from-script"}}\'\n')
    script.chmod(0o700)
    path = write_kubeconfig(tmp_path / "config", {"exec": {"command": "./plugin"}})
    assert (await load(path)).token == "from-script"
