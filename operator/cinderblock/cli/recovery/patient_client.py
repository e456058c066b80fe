"""Requests to the API server of a cluster that is just being set up: they are repeated while it does not answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

from cinderblock.errors import AlreadyExists, Conflict, KubeUnavailable
from cinderblock.kube.client import JsonObject, KubeClient
from cinderblock.kube.kinds import Kind

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

POLL_SECONDS: Final = 2.0
RETRIES: Final = 30
"""How often a request is repeated while the API server does not answer: for a minute."""
PATIENCE_POLLS: Final = 90
"""Polls after which an object that nobody takes up shows that no operator runs: three minutes."""


class PatientClient:
    """The requests of a recovery. Each write may be repeated: names are fixed, and deletions name a UID.

    Args:
        kube: the cluster.
        sleep: waits for seconds.
    """

    def __init__(self, kube: KubeClient, sleep: Sleep) -> None:
        self._kube = kube
        self._sleep = sleep

    async def get(self, kind: Kind, namespace: str, name: str) -> JsonObject | None:
        """Return an object, or None. Raises KubeUnavailable after RETRIES."""
        return await self._patiently(lambda: self._kube.get(kind, name, namespace))

    async def get_or_create(self, kind: Kind, body: JsonObject) -> JsonObject:
        """Return the new object, or the one that has its name. Raises KubeUnavailable after RETRIES."""
        metadata = body["metadata"]

        async def attempt() -> JsonObject:
            try:
                return await self._kube.create(kind, body)
            except AlreadyExists:
                existing = await self._kube.get(kind, metadata["name"], metadata["namespace"])
                if existing is None:
                    raise KubeUnavailable(f"{kind.kind} {metadata['name']} is just being deleted") from None
                return existing

        return await self._patiently(attempt)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        """Delete an object with this UID, and wait until it is gone. Raises KubeUnavailable if it stays."""

        async def attempt() -> None:
            try:
                await self._kube.delete(kind, name, namespace, uid=uid)
            except Conflict:
                return

        await self._patiently(attempt)
        for _ in range(PATIENCE_POLLS):
            body = await self.get(kind, namespace, name)
            if body is None or body["metadata"]["uid"] != uid:
                return
            await self._sleep(POLL_SECONDS)
        raise _no_operator(kind, namespace, name)

    async def polls(self, kind: Kind, namespace: str, name: str) -> AsyncIterator[JsonObject]:
        """Yield an object again and again until it is gone. Raises KubeUnavailable if no operator takes it up."""
        polls = 0
        while (body := await self.get(kind, namespace, name)) is not None:
            yield body
            polls += 1
            if polls >= PATIENCE_POLLS and not body.get("status", {}).get("phase"):
                raise _no_operator(kind, namespace, name)
            await self._sleep(POLL_SECONDS)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        for _ in range(RETRIES):
            try:
                return await call()
            except KubeUnavailable:
                await self._sleep(POLL_SECONDS)
        return await call()


def _no_operator(kind: Kind, namespace: str, name: str) -> KubeUnavailable:
    return KubeUnavailable(
        f"Cannot recover: no operator works on {kind.kind} {namespace}/{name}. Check that the operator runs, and run"
        " the command again."
    )
