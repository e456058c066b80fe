"""Read kubeconfig files the way kubectl does."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import yaml

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.kube.rest_config import RestConfig, read_config_file

_EXPIRY_MARGIN: Final = timedelta(seconds=60)
"""A plugin is asked for a new token this long before the old one expires."""


_UNSUPPORTED: Final = ("auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra")


@dataclass(frozen=True, slots=True, repr=False)
class UserCredentials:
    """What a user of a kubeconfig shows the server: a PEM certificate and its key, or a bearer token."""

    certificate: bytes | None = None
    private_key: bytes | None = None
    token: str | None = None


class Kubeconfig:
    """A context of one or several kubeconfig files; of two entries with one name, the first counts."""

    def __init__(self, paths: tuple[str, ...], context: str | None = None) -> None:
        self._paths = paths
        self._context = context
        self._plugin = ExecPlugin()

    async def load(self, *, renew: bool = False) -> RestConfig:
        """Read the files anew, and run the user's exec plugin unless its last answer is still good."""
        entries = _Entries(self._paths)
        context = entries.find("contexts", "context", self._context or entries.current_context)
        cluster = entries.find("clusters", "cluster", str(context.values.get("cluster", "")))
        user = (
            entries.find("users", "user", str(context.values["user"]))
            if context.values.get("user")
            else _Entry({}, "", "")
        )
        unsupported = [key for key in _UNSUPPORTED if user.values.get(key)]
        if unsupported:
            raise InvalidInput(
                f"{user.describe()} uses {', '.join(unsupported)}: give a token, a client certificate or an exec plugin"
            )
        shown = UserCredentials(user.data("client-certificate"), user.data("client-key"), user.token())
        if user.values.get("exec") and not (shown.token or shown.certificate):
            shown = await self._plugin.run(user, cluster, renew=renew)
        return RestConfig(
            server=cluster.required("server").rstrip("/"),
            ca=cluster.data("certificate-authority"),
            insecure=bool(cluster.values.get("insecure-skip-tls-verify", False)),
            server_name=cluster.values.get("tls-server-name"),
            proxy=cluster.values.get("proxy-url"),
            namespace=str(context.values.get("namespace") or "default"),
            certificate=shown.certificate,
            private_key=shown.private_key,
            token=shown.token,
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    """One named cluster, user or context, and the file that it is from."""

    values: dict[str, Any]
    section: str
    path: str

    def describe(self) -> str:
        return f"An entry of {self.section} in {self.path}"

    def required(self, key: str) -> str:
        """A field that must be there."""
        value = self.values.get(key)
        if not value:
            raise InvalidInput(f"{self.describe()} has no {key}")
        return str(value)

    def resolve(self, path: str) -> str:
        """A path as seen from the file's own folder, as kubectl does."""
        return os.path.join(os.path.dirname(os.path.abspath(self.path)), path)

    def data(self, key: str) -> bytes | None:
        """What ``<key>-data`` holds in base64, else the content of the file that ``<key>`` names."""
        encoded = self.values.get(f"{key}-data")
        if encoded:
            try:
                return base64.b64decode(str(encoded), validate=True)
            except binascii.Error as error:
                raise InvalidInput(f"{self.describe()}: {key}-data is not base64") from error
        path = self.values.get(key)
        return read_config_file(self.resolve(str(path))) if path else None

    def token(self) -> str | None:
        """The token file's content, else the token (client-go prefers the file too)."""
        path = self.values.get("tokenFile")
        if path:
            return read_config_file(self.resolve(str(path))).decode().strip()
        token = self.values.get("token")
        return str(token) if token else None


class _Entries:
    """What several kubeconfig files say together."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._files = [(path, _read_yaml(path)) for path in map(os.path.expanduser, paths) if os.path.exists(path)]
        if not self._files:
            raise InvalidInput(f"No kubeconfig at {os.pathsep.join(paths)}")

    @property
    def current_context(self) -> str:
        """The first ``current-context`` that is set."""
        return next(
            (str(content["current-context"]) for _, content in self._files if content.get("current-context")), ""
        )

    def find(self, section: str, key: str, name: str) -> _Entry:
        """The first entry with this name."""
        for path, content in self._files:
            for entry in content.get(section) or ():
                if isinstance(entry, dict) and entry.get("name") == name:
                    return _Entry(entry.get(key) or {}, f"{section} ({name})", path)
        raise InvalidInput(f"No {key} {name!r} among the {section} of {', '.join(path for path, _ in self._files)}")


class ExecPlugin:
    """Runs a user's credential plugin (client.authentication.k8s.io) and keeps its answer until it expires."""

    def __init__(self) -> None:
        self._kept: UserCredentials | None = None
        self._expires: datetime | None = None

    async def run(self, user: _Entry, cluster: _Entry, *, renew: bool) -> UserCredentials:
        """What the plugin gives, now or since its last answer. Raises AccessDenied if it gives nothing."""
        expired = self._expires is not None and datetime.now(UTC) >= self._expires - _EXPIRY_MARGIN
        if renew or expired or self._kept is None:
            status = await self._ask(user, cluster)
            expiry = status.get("expirationTimestamp")
            self._expires = datetime.fromisoformat(str(expiry)) if expiry else None
            self._kept = UserCredentials(
                _encoded(status.get("clientCertificateData")),
                _encoded(status.get("clientKeyData")),
                status.get("token"),
            )
        return self._kept

    async def _ask(self, user: _Entry, cluster: _Entry) -> dict[str, Any]:
        plugin = user.values["exec"]
        command = str(plugin.get("command", ""))
        where = user.resolve(command) if os.sep in command else command
        spec: dict[str, Any] = {"interactive": False}
        if plugin.get("provideClusterInfo"):
            ca = cluster.data("certificate-authority")
            spec["cluster"] = {"server": cluster.required("server")}
            if ca:
                spec["cluster"]["certificate-authority-data"] = base64.b64encode(ca).decode()
        request = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}
        environment = {item["name"]: str(item["value"]) for item in plugin.get("env") or ()}
        answer = await _run_program(
            [where, *map(str, plugin.get("args") or ())], environment | {"KUBERNETES_EXEC_INFO": json.dumps(request)}
        )
        status = answer.get("status")
        if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
            raise AccessDenied(
                f"The credential plugin {command} gave neither a token nor a certificate: log in with it"
            )
        return status


async def _run_program(arguments: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """What a plugin prints, as JSON. Its own words never get into an error: they may hold what it should keep."""
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            env=os.environ | environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
    except OSError as error:
        raise AccessDenied(f"The credential plugin {arguments[0]} cannot be run: {error.strerror}") from error
    printed, _ = await process.communicate()
    if process.returncode:
        raise AccessDenied(f"The credential plugin {arguments[0]} ended with code {process.returncode}: run it by hand")
    try:
        answer = json.loads(printed)
    except ValueError:
        answer = None
    return answer if isinstance(answer, dict) else {}


def _encoded(text: str | None) -> bytes | None:
    return text.encode() if text else None


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(read_config_file(path))
    except yaml.YAMLError as error:
        raise InvalidInput(f"{path} is not YAML, so it is no kubeconfig") from error
    if not isinstance(content, dict):
        raise InvalidInput(f"{path} is no kubeconfig: it holds no mapping")
    return content
