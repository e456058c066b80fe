"""Session credentials for movers, from the token service that the administrator names."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from cinderblock.api.broker import AUDIENCE, CredentialsAnswer
from cinderblock.api.v1alpha1.cluster_store import SessionCredentials
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.broker.access import Access
from cinderblock.broker.faults import not_granted
from cinderblock.broker.keyed_locks import KeyedLocks
from cinderblock.broker.stores import OpenStore
from cinderblock.broker.ttl_cache import TtlCache
from cinderblock.errors import AccessDenied, CinderblockError, InvalidInput, StoreUnreachable, TransientError
from cinderblock.kube.client import KubeClient
from cinderblock.kube.kinds import TOKEN_REVIEW
from cinderblock.lifecycle.grant import POLICY_CHARACTERS, partition_of, session_policy
from cinderblock.reasons import Reason
from cinderblock.store.s3.signers import sts

TOKEN_SECONDS: Final = 3600
"""Requested lifetime of the broker's own token for a token service."""
_TOKEN_CACHE_SECONDS: Final = 1800.0
_SESSIONS: Final = 4096
_PER_NAMESPACE: Final = 256
_CALLS: Final = 8
"""Calls of the token service of one store at the same time."""
_LOCAL: Final = re.compile(r"localhost|127\..*|\[?::1\]?|.*\.svc(\.cluster\.local)?\.?")
"""Hosts of this machine and cluster, to which the broker sends its token without TLS if the URL has no https."""

_SETTINGS: Final = "spec.moverAccess.sessionCredentials"

_logger = logging.getLogger(__name__)


class Sessions:
    """Gets session credentials, and returns the same ones to a pod for the first half of their lifetime.

    Args:
        kube: makes tokens of the broker's ServiceAccount.
        namespace: of the broker.
        account: name of its ServiceAccount; None: it has none.
        clock: returns seconds.
    """

    def __init__(
        self, kube: KubeClient, namespace: str, account: str | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._account = account
        self._sessions: TtlCache[CredentialsAnswer] = TtlCache(_SESSIONS, _PER_NAMESPACE, clock)
        self._tokens: TtlCache[str] = TtlCache(64, 64, clock)
        self._getting = KeyedLocks()
        self._calls: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_CALLS))

    async def credentials(self, access: Access, store: OpenStore) -> CredentialsAnswer:
        """Return credentials that permit what the grant permits.

        Raises AccessDenied if the store gives no session credentials or the token service refuses them, and
        StoreUnreachable if the token service does not answer.
        """
        rules = access.store.mover_access
        if rules.mode is not MoverAccess.SESSION_CREDENTIALS or rules.session_credentials is None:
            raise not_granted(
                f"ClusterBackupStore {access.store.cluster_store} does not use session credentials"
                " (spec.moverAccess.mode). Start the operation again."
            )
        policy = session_policy(
            access.grant, access.store.spec.container, partition_of(rules.session_credentials.role_arn)
        )
        if len(policy) >= POLICY_CHARACTERS:
            raise _wrong_setting(
                access.store.cluster_store,
                f"its session policy would have {len(policy)} characters, and may have {POLICY_CHARACTERS - 1}. Shorten"
                " spec.prefix.",
            )
        settings = rules.session_credentials
        key = hashlib.sha256(
            f"{access.pod.uid} {access.store.cluster_store_uid} {settings.model_dump_json()} {policy}".encode()
        ).hexdigest()
        async with self._getting.hold(key):
            known = self._sessions.get(key)
            if known is None:
                known = await self._assume(access, store, settings, policy)
                seconds = _seconds_to_keep(settings, known.expires_at)
                self._sessions.put(key, access.pod.namespace, known, seconds)
            return known

    async def _assume(
        self, access: Access, store: OpenStore, settings: SessionCredentials, policy: str
    ) -> CredentialsAnswer:
        _check_endpoint(settings, access.store.cluster_store)
        call = partial(
            sts.assume_role,
            endpoint_url=settings.endpoint_url,
            region=access.store.spec.region,
            ca_file=store.ca_file if settings.endpoint_url is not None else None,
            role_arn=settings.role_arn,
            session_name=f"cinderblock-{access.operation_uid}"[:64],
            token=await self._token(settings.audience, access.store.cluster_store),
            policy=policy,
            seconds=settings.duration_seconds,
        )
        try:
            async with self._calls[access.store.cluster_store_uid]:
                made = await asyncio.to_thread(call)
        except CinderblockError as error:
            raise _shown(error, access.store.cluster_store) from None
        return CredentialsAnswer(
            access_key_id=made.credentials.access_key,
            secret_access_key=made.credentials.secret_key,
            session_token=made.credentials.session_token or "",
            expires_at=made.expires_at,
        )

    async def _token(self, audience: str, store: str) -> str:
        """Return a token of the broker's own ServiceAccount for the token service."""
        known = self._tokens.get(audience)
        if known is not None:
            return known
        if self._account is None:
            raise TransientError("The broker has no ServiceAccount of its own.", reason=Reason.BROKER_UNAVAILABLE)
        if audience == AUDIENCE:
            raise _wrong_setting(store, f"{_SETTINGS}.audience is that of the broker itself. Choose another one.")
        token = await self._kube.create_token(self._namespace, self._account, audience, TOKEN_SECONDS)
        review = await self._kube.create_review(TOKEN_REVIEW, {"token": token})
        if review.get("authenticated"):
            # The token service could act as the broker, and read the Secrets of all stores.
            raise _wrong_setting(store, f"the API server accepts {_SETTINGS}.audience as its own. Choose another one.")
        self._tokens.put(audience, "", token, _TOKEN_CACHE_SECONDS)
        return token


def _check_endpoint(settings: SessionCredentials, store: str) -> None:
    """Raise InvalidInput if the token of the broker would travel unencrypted through other networks."""
    url = urlsplit(settings.endpoint_url or "https://")
    if url.scheme != "https" and not _LOCAL.fullmatch(url.hostname or ""):
        raise _wrong_setting(store, f"{_SETTINGS}.endpointUrl must begin with https://, unless it is in the cluster.")


def _wrong_setting(store: str, cause: str) -> InvalidInput:
    """Return the error of a setting that only an administrator can correct."""
    return InvalidInput(f"Cannot get session credentials for ClusterBackupStore {store}: {cause}")


def _shown(error: CinderblockError, store: str) -> CinderblockError:
    """Return what tenants read about a failure of the token service. The administrator reads the rest in the log."""
    _logger.warning("The token service gives no session credentials", extra={"store": store, "cause": error.message})
    text = f"The token service of ClusterBackupStore {store} gives no session credentials: see the log of the broker."
    kind = AccessDenied if error.permanent else StoreUnreachable
    return kind(text, reason=error.reason)


def _seconds_to_keep(settings: SessionCredentials, expires_at: datetime) -> float:
    """Return for how many seconds credentials are reused: never in the second half of their lifetime."""
    left = (expires_at - datetime.now(UTC)).total_seconds()
    return max(0.0, left - settings.duration_seconds / 2)
