"""Load kubeconfig files through the ``kubernetes`` package, with kubectl's rules.

The package merges the files and reads the server, the TLS options, the proxy, the token and paths of certificates. Its
loader differs from kubectl in places, or acts as somebody else in silence. So it gets one context, one cluster and one
user that `Kubeconfig` has checked and prepared; the comments say what each step guards against (kubernetes 37.0.1).
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import KubeConfigLoader, KubeConfigMerger

from cinderblock.errors import InvalidInput
from cinderblock.kube.exec_plugin import ExecPlugin, UserCredentials
from cinderblock.kube.rest_config import RestConfig, bearer_token, read_config_file

_REFUSED_FIELDS: Final = ("auth-provider", "username", "password", "as", "as-uid", "as-groups", "as-user-extra")
"""The loader ignores impersonation, and would act as the user behind it."""
_CLUSTER_OPTIONS: Final = ("server", "insecure-skip-tls-verify", "tls-server-name", "proxy-url")


class Kubeconfig:
    """A context of one or several kubeconfig files; the first of two entries with one name counts."""

    def __init__(self, paths: tuple[str, ...], context: str | None = None) -> None:
        self._paths = paths
        self._context = context
        self._plugin = ExecPlugin()

    async def load(self, *, renew: bool = False) -> RestConfig:
        """Read the files again, and run the user's exec plugin unless its last answer is still valid."""
        files = _MergedFiles(self._paths)
        name = self._context or files.current_context
        context = files.find("contexts", "context", name)
        cluster = files.find("clusters", "cluster", str(context.values.get("cluster", "")))
        # The loader treats a missing user as no user, and continues without credentials.
        user_name = context.values.get("user")
        user = files.find("users", "user", str(user_name)) if user_name else _Entry({}, "", "")
        _check_user(user)
        configuration = await _load(cluster, user)
        ca = cluster.embedded("certificate-authority") or _read_optional(configuration.ssl_ca_cert)
        credentials = UserCredentials(
            user.embedded("client-certificate") or _read_optional(configuration.cert_file),
            user.embedded("client-key") or _read_optional(configuration.key_file),
            bearer_token(configuration.api_key.get("BearerToken")),
        )
        plugin = user.values.get("exec")
        # client-go runs no plugin for a user that has a token or a certificate.
        if plugin and not (credentials.token or credentials.certificate):
            described = _describe_cluster(cluster, ca)
            credentials = await self._plugin.credentials(plugin, user.directory, described, renew=renew)
        return RestConfig(
            server=configuration.host,
            ca=ca,
            insecure=not configuration.verify_ssl,
            server_name=configuration.tls_server_name,
            proxy=configuration.proxy,
            namespace=str(context.values.get("namespace") or "default"),
            context=name,
            certificate=credentials.certificate,
            private_key=credentials.private_key,
            token=credentials.token,
        )


@dataclass(frozen=True, slots=True, repr=False)
class _Entry:
    """One named cluster, user or context, and the file that it is from."""

    values: Mapping[str, Any]
    description: str
    path: str

    @property
    def directory(self) -> str:
        """The folder that relative paths start from, as in kubectl."""
        return os.path.dirname(os.path.abspath(self.path))

    def embedded(self, key: str) -> bytes | None:
        """Return what ``<key>-data`` holds in base64.

        The loader would write it to a file in the temporary folder, a private key too, and leave it there until the
        process ends. It also accepts what is not base64.
        """
        encoded = self.values.get(f"{key}-data")
        if not encoded:
            return None
        try:
            return base64.b64decode(str(encoded), validate=True)
        except binascii.Error as error:
            raise InvalidInput(f"Cannot use {self.description}: {key}-data is not base64") from error

    def files(self, *keys: str) -> dict[str, str]:
        """Return the files that an entry names, as absolute paths, except where the content is embedded.

        The loader resolves a user's paths from the folder of the cluster's file.
        """
        named = {key: self.values.get(key) for key in keys if not self.values.get(f"{key}-data")}
        return {key: os.path.join(self.directory, str(path)) for key, path in named.items() if path}


class _MergedFiles:
    """The content of several kubeconfig files, merged."""

    def __init__(self, paths: tuple[str, ...]) -> None:
        self._paths = os.pathsep.join(paths)
        if not any(os.path.exists(os.path.expanduser(path)) for path in paths):
            raise InvalidInput(f"Cannot load the kubeconfig {self._paths}: no such file")
        try:
            self._merger = KubeConfigMerger(self._paths)
        except OSError as error:
            raise InvalidInput(f"Cannot read the kubeconfig {error.filename}: {error.strerror}") from error
        except (yaml.YAMLError, UnicodeDecodeError):
            # Here and below, errors of the package must not be chained: they quote users with their tokens.
            raise InvalidInput(f"Cannot load the kubeconfig {self._paths}: it is not YAML") from None
        except (ConfigException, AttributeError, KeyError, TypeError):
            raise InvalidInput(f"Cannot load the kubeconfig {self._paths}: it is not a kubeconfig") from None

    @property
    def current_context(self) -> str:
        """The first ``current-context`` that is set, as in kubectl. The merger takes the last."""
        contents = self._merger.config_files.values()
        return next((str(content["current-context"]) for content in contents if content.get("current-context")), "")

    def find(self, section: str, key: str, name: str) -> _Entry:
        """Return the first entry with this name."""
        try:
            found = self._merger.config[section].get_with_name(name, safe=True)
        except (ConfigException, TypeError):
            raise InvalidInput(f"Cannot load the kubeconfig {self._paths}: it is not a kubeconfig") from None
        if found is None:
            raise InvalidInput(f"Cannot load the kubeconfig {self._paths}: it has no {key} named {name!r}")
        values = found.value.get(key) or {}
        description = f"the {key} {name!r} of the kubeconfig {found.path}"
        if not isinstance(values, dict):
            raise InvalidInput(f"Cannot use {description}: it is not a mapping")
        return _Entry(values, description, found.path)


async def _load(cluster: _Entry, user: _Entry) -> Configuration:
    """Have the package load one cluster and one user, without what it would do wrong."""
    if not cluster.values.get("server"):
        # The loader would connect to http://localhost.
        raise InvalidInput(f"Cannot use {cluster.description}: it has no server")
    options = {key: cluster.values[key] for key in _CLUSTER_OPTIONS if cluster.values.get(key)}
    identity = user.files("client-certificate", "client-key", "tokenFile")
    if user.values.get("token") and "tokenFile" not in identity:
        # The loader prefers the token, and would not see that its file has changed; client-go prefers the file.
        identity["token"] = user.values["token"]
    name = "main"
    loader = KubeConfigLoader(
        {
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": options | cluster.files("certificate-authority")}],
            "users": [{"name": name, "user": identity}],
        }
    )
    configuration = Configuration()
    try:
        await loader.load_and_set(configuration)
    except OSError as error:
        raise InvalidInput(f"Cannot read {error.filename} to connect to the API server: {error.strerror}") from error
    except (ConfigException, UnicodeDecodeError) as error:
        raise InvalidInput(f"Cannot use {user.description or cluster.description}: {error}") from None
    return configuration


def _check_user(user: _Entry) -> None:
    refused = [key for key in _REFUSED_FIELDS if user.values.get(key)]
    if refused:
        raise InvalidInput(
            f"Cannot use {user.description}: {', '.join(refused)} is not supported. "
            "Use a token, a client certificate or an exec plugin."
        )


def _describe_cluster(cluster: _Entry, ca: bytes | None) -> dict[str, Any]:
    """Return the cluster as an ExecCredential describes it to a plugin."""
    described = {key: cluster.values[key] for key in _CLUSTER_OPTIONS if cluster.values.get(key)}
    if ca:
        described["certificate-authority-data"] = base64.b64encode(ca).decode()
    return described


def _read_optional(path: str | None) -> bytes | None:
    return read_config_file(path) if path else None
