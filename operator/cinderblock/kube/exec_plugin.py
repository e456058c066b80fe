"""Run a kubeconfig's credential plugin (client.authentication.k8s.io).

The ``kubernetes`` package has a runner of its own. It has no time limit, and gives the plugin no facts about the
cluster. It does not find a command next to the kubeconfig. It puts the plugin's stderr into its error, logs that, and
the client continues without credentials (kubernetes-client/python issue 1409).
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cinderblock.errors import AccessDenied

PLUGIN_SECONDS: Final = 30.0
"""Time limit of one run, that of an API call: calls wait while a plugin runs, and nobody can answer its questions."""
_EXPIRY_MARGIN: Final = timedelta(seconds=60)
"""The plugin runs again this long before its last answer expires."""


@dataclass(frozen=True, slots=True, repr=False)
class UserCredentials:
    """The credentials of a kubeconfig's user: a PEM certificate and its key, or a bearer token."""

    certificate: bytes | None = None
    private_key: bytes | None = None
    token: str | None = None


class ExecPlugin:
    """Runs a credential plugin and keeps its answer until it expires."""

    def __init__(self, *, seconds: float = PLUGIN_SECONDS) -> None:
        self._seconds = seconds
        self._cached: UserCredentials | None = None
        self._expires: datetime | None = None

    async def credentials(
        self, plugin: Mapping[str, Any], directory: str, cluster: Mapping[str, Any], *, renew: bool
    ) -> UserCredentials:
        """Return the plugin's credentials, from its last answer while that is valid.

        Args:
            plugin: the ``exec`` entry of a user.
            directory: folder of the kubeconfig; a command with a slash is relative to it.
            cluster: the cluster as ExecCredential describes it, for a plugin that asks for it.
            renew: run the plugin even if its last answer is still valid.

        Raises:
            AccessDenied: the plugin failed, took too long or gave nothing.
        """
        is_expired = self._expires is not None and datetime.now(UTC) >= self._expires - _EXPIRY_MARGIN
        if renew or is_expired or self._cached is None:
            status = await self._request(plugin, directory, cluster)
            expiry = status.get("expirationTimestamp")
            self._expires = datetime.fromisoformat(str(expiry)) if expiry else None
            self._cached = UserCredentials(
                _encode(status.get("clientCertificateData")),
                _encode(status.get("clientKeyData")),
                status.get("token"),
            )
        return self._cached

    async def _request(
        self, plugin: Mapping[str, Any], directory: str, cluster: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        command = str(plugin.get("command", ""))
        path = os.path.join(directory, command) if os.sep in command else command
        spec: dict[str, Any] = {"interactive": False}
        if plugin.get("provideClusterInfo"):
            spec["cluster"] = dict(cluster)
        request = {"apiVersion": plugin.get("apiVersion"), "kind": "ExecCredential", "spec": spec}
        environment = {item["name"]: str(item["value"]) for item in plugin.get("env") or ()}
        environment["KUBERNETES_EXEC_INFO"] = json.dumps(request)
        output = await self._run([path, *map(str, plugin.get("args") or ())], environment)
        try:
            status = json.loads(output)["status"]
        except (ValueError, TypeError, KeyError):
            status = None
        if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
            raise AccessDenied(
                f"Cannot log in: the credential plugin {command} gave neither a token nor a certificate. "
                "Log in with the plugin."
            )
        return status

    async def _run(self, arguments: list[str], environment: Mapping[str, str]) -> bytes:
        """Return what a plugin prints. Its stderr is discarded, because it may hold secrets."""
        command = arguments[0]
        starting = asyncio.ensure_future(
            asyncio.create_subprocess_exec(
                *arguments,
                env={**os.environ, **environment},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        )
        try:
            async with asyncio.timeout(self._seconds):
                process = await asyncio.shield(starting)
                output, _ = await process.communicate()
        except TimeoutError:
            raise AccessDenied(
                f"Cannot log in: the credential plugin {command} did not end within {self._seconds:g} seconds. "
                "Run it in a shell."
            ) from None
        except OSError as error:
            raise AccessDenied(f"Cannot run the credential plugin {command}: {error.strerror}") from error
        finally:
            await _kill(starting)
        if process.returncode:
            raise AccessDenied(
                f"Cannot log in: the credential plugin {command} ended with code {process.returncode}. "
                "Run it in a shell."
            )
        return output


async def _kill(starting: asyncio.Future[asyncio.subprocess.Process]) -> None:
    """End a process that still runs, with its children, which would keep its output open.

    A call that is cancelled while the process starts must wait for the start, or the children would stay.
    """
    with contextlib.suppress(OSError):
        process = await starting
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _encode(text: str | None) -> bytes | None:
    return text.encode() if text else None
