"""Authenticate movers by their ServiceAccount tokens, and keep the results for a while."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Final, NamedTuple

from cinderblock.api.broker import AUDIENCE
from cinderblock.broker.access import Access, PodIdentity, find_access
from cinderblock.broker.ttl_cache import TtlCache
from cinderblock.broker.turns import NamespaceTurns
from cinderblock.errors import AccessDenied, CinderblockError, TransientError
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import TOKEN_REVIEW
from cinderblock.reasons import Reason

ACCESS_SECONDS: Final = 60.0
"""Longest time for which rights that were found once are used again without a check."""
FRESH_SECONDS: Final = 1.0
"""The same where the answer counts for longer than a minute. One token causes at most one check in this time."""
REFUSAL_SECONDS: Final = 10.0
"""How long a refused token is refused again without a check."""
RETRY_SECONDS: Final = 1.0
"""The same for a failure that may pass, such as an API server that does not answer."""
_TOTAL: Final = 4096
_PER_NAMESPACE: Final = 256
"""Most tokens of one namespace that are remembered, whether they were accepted or refused."""
_REVIEWS: Final = 16
"""TokenReviews at the same time. Anybody who reaches the broker can cause one, so they must not take all of the 64
connections to the API server."""
_NEW_REVIEWS: Final = 8
"""TokenReviews at the same time of tokens that were not valid recently. The others are for movers that run."""
_LOOKUPS: Final = 512
"""Most tokens that are being looked up or wait for that."""
_NEW_LOOKUPS: Final = 128
"""The same for tokens that were not valid recently."""
_NEW_LOOKUPS_OF_ADDRESS: Final = 16
"""The same for new tokens of one address. Movers of one node may share an address, and soon try again."""
_READS_OF_NAMESPACE: Final = 8
"""Tokens of one namespace whose objects are read at the same time. Reads have turns of their own: one that waited for a
body that somebody sends slowly, or for a token service, would keep one of the places that all namespaces share."""
_LOOKUPS_OF_NAMESPACE: Final = 32
"""The same, with those that wait for that. Each place is free again after some reads of the API server."""
_RECENT_SECONDS: Final = 3600.0
"""How long a valid token counts as recently valid. The kubelet replaces it within an hour."""

_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,8192}\.[A-Za-z0-9_-]{1,8192}\.[A-Za-z0-9_-]{1,8192}")
"""A signed JSON Web Token (RFC 7515, section 7.1)."""
_ACCOUNT: Final = re.compile(r"system:serviceaccount:([a-z0-9-]{1,63}):[a-z0-9.-]{1,253}")
_POD_NAME: Final = "authentication.kubernetes.io/pod-name"
_POD_UID: Final = "authentication.kubernetes.io/pod-uid"
"""Extra fields of a user whose token is bound to a pod (Kubernetes: Managing Service Accounts)."""


class _Lookup(NamedTuple):
    """A token that is looked up.

    Attributes:
        task: finds the access.
        address: of the first one who asks; None for a token that was valid recently.
        waiting: one item for each request that waits.
    """

    task: asyncio.Task[Access]
    address: str | None
    waiting: list[None]


class Authenticator:
    """Finds out what the owner of a token may do.

    Args:
        kube: reviews tokens and reads objects.
        secrets_in: the namespace of the broker.
        clock: returns seconds.
    """

    def __init__(self, kube: KubeClient, secrets_in: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._kube = kube
        self._secrets_in = secrets_in
        self._turns = NamespaceTurns(_READS_OF_NAMESPACE, _LOOKUPS_OF_NAMESPACE)
        self._accesses: TtlCache[Access] = TtlCache(_TOTAL, _PER_NAMESPACE, clock)
        self._refusals: TtlCache[CinderblockError] = TtlCache(_TOTAL, _PER_NAMESPACE, clock)
        self._fresh: TtlCache[bool] = TtlCache(_TOTAL, _PER_NAMESPACE, clock)
        self._recent: TtlCache[bool] = TtlCache(_TOTAL, _PER_NAMESPACE, clock)
        self._running: dict[str, _Lookup] = {}
        self._reviews = asyncio.Semaphore(_REVIEWS)
        self._new_reviews = asyncio.Semaphore(_NEW_REVIEWS)

    async def authenticate(self, authorization: str, address: str = "", *, freshly: bool = False) -> Access:
        """Return what the sender of an Authorization header may do.

        Anybody who reaches the broker may send tokens that nobody has signed. So new tokens have a share of the
        lookups, and each address has a share of that.

        Args:
            authorization: the header.
            address: of the sender.
            freshly: whether the token, the pod and the operation are read again, unless that was done a moment ago.

        Raises AccessDenied (Unauthorized) for a token that is not valid here, TransientError if too many tokens are
        being looked up, and what `find_access` raises.
        """
        token = _bearer(authorization)
        key = hashlib.sha256(token.encode()).hexdigest()
        known, refusal = self._accesses.get(key), self._refusals.get(key)
        if known is not None and (not freshly or self._fresh.get(key) is not None):
            return known
        if refusal is not None:
            raise _copy(refusal)
        lookup = self._running.get(key) or self._look_up(key, token, address)
        lookup.waiting.append(None)
        try:
            # One of several requests with the same token may be cancelled; the others continue to wait.
            return await asyncio.shield(lookup.task)
        except CinderblockError as error:
            raise _copy(error) from None
        finally:
            lookup.waiting.pop()
            if not lookup.waiting and not lookup.task.done():
                # A later request with this token must not wait for a task that ends without a result.
                self._running.pop(key, None)
                lookup.task.cancel()

    def _look_up(self, key: str, token: str, address: str) -> _Lookup:
        """Begin to look up a token. Raises TransientError if too many are being looked up."""
        is_recent = self._recent.get(key) is not None
        new = [lookup.address for lookup in self._running.values() if lookup.address is not None]
        is_much = not is_recent and (len(new) >= _NEW_LOOKUPS or new.count(address) >= _NEW_LOOKUPS_OF_ADDRESS)
        if is_much or len(self._running) >= _LOOKUPS:
            raise TransientError(
                "The broker looks up too many tokens. Try again in a second.", reason=Reason.BROKER_UNAVAILABLE
            )
        task = asyncio.create_task(self._find(key, token, is_recent=is_recent))
        self._running[key] = lookup = _Lookup(task, None if is_recent else address, [])
        task.add_done_callback(partial(self._forget, key))
        return lookup

    def _forget(self, key: str, ended: asyncio.Task[Access]) -> None:
        if (lookup := self._running.get(key)) is not None and lookup.task is ended:
            del self._running[key]
        if not ended.cancelled():
            # Otherwise asyncio would complain about an error that nobody waits for any more.
            ended.exception()

    async def _find(self, key: str, token: str, *, is_recent: bool) -> Access:
        owner = ""
        try:
            async with nullcontext() if is_recent else self._new_reviews:
                pod = await self._review(token)
            owner = pod.namespace
            async with self._turns.turn(owner):
                access = await find_access(self._kube, pod, self._secrets_in)
        except CinderblockError as error:
            if error.permanent:
                self._accesses.forget(key)
            self._refusals.put(key, owner, _copy(error), REFUSAL_SECONDS if error.permanent else RETRY_SECONDS)
            raise
        self._accesses.put(key, owner, access, ACCESS_SECONDS)
        self._fresh.put(key, owner, True, FRESH_SECONDS)
        self._recent.put(key, owner, True, _RECENT_SECONDS)
        return access

    async def _review(self, token: str) -> PodIdentity:
        """Return the pod that a token is bound to. Raises AccessDenied (Unauthorized) if it is not valid here."""
        async with self._reviews:
            status = await self._kube.create_review(TOKEN_REVIEW, {"token": token, "audiences": [AUDIENCE]})
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            raise _unauthorized("The token is not valid, has expired, or is for another audience.")
        user = status.get("user") or {}
        account = _ACCOUNT.fullmatch(str(user.get("username", "")))
        extra = user.get("extra") or {}
        names: list[str] = extra.get(_POD_NAME) or []
        uids: list[str] = extra.get(_POD_UID) or []
        if account is None or len(names) != 1 or len(uids) != 1:
            raise _unauthorized("The token is not that of a pod.")
        return PodIdentity(account[1], str(names[0]), str(uids[0]))


def _bearer(authorization: str) -> str:
    """Return the token of an Authorization header.

    Text that cannot be a token for this broker is refused here, so that it costs no request to the API server. The
    claims are not verified here.
    """
    scheme, _, token = authorization.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not _TOKEN.fullmatch(token):
        raise _unauthorized("Show the ServiceAccount token of a mover: Authorization: Bearer TOKEN.")
    claims = _claims(token)
    audiences = claims.get("aud")
    listed = [audiences] if isinstance(audiences, str) else audiences
    bound = claims.get("kubernetes.io")
    if not isinstance(listed, list) or AUDIENCE not in listed:
        raise _unauthorized("The token is for another audience.")
    if not isinstance(bound, Mapping) or not isinstance(bound.get("pod"), Mapping):
        raise _unauthorized("The token is not that of a pod.")
    return token


def _claims(token: str) -> dict[str, Any]:
    """Return the claims of a token without verifying them; empty if they cannot be read."""
    part = token.split(".")[1]
    try:
        value = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _unauthorized(message: str) -> AccessDenied:
    return AccessDenied(message, reason=Reason.UNAUTHORIZED)


def _copy(error: CinderblockError) -> CinderblockError:
    """Return an equal error. The traceback of an error object grows each time it is raised."""
    return type(error)(error.message, reason=error.reason)
