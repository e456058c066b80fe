"""The ASGI application of the broker."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cinderblock.api.broker import (
    CREDENTIALS_PATH,
    NEW_DATA_KEY_PATH,
    SIGN_PATH,
    UNWRAP_PATH,
    NewDataKeyRequest,
    SignAnswer,
    SignRequest,
    UnwrapRequest,
)
from cinderblock.api.meta import Model
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.broker import data_keys, faults
from cinderblock.broker.access import Access
from cinderblock.broker.authenticator import Authenticator
from cinderblock.broker.granted_packs import GrantedPacks
from cinderblock.broker.s3_request import check_request
from cinderblock.broker.sessions import Sessions
from cinderblock.broker.settings import BrokerSettings
from cinderblock.broker.stores import StoreSecrets
from cinderblock.broker.ttl_cache import TtlCache
from cinderblock.broker.turns import NamespaceTurns
from cinderblock.errors import CinderblockError, InvalidInput
from cinderblock.observability.broker_metrics import BrokerMetrics
from cinderblock.observability.log import BROKER_ACCESS_LOGGER
from cinderblock.serving.body import read_body
from cinderblock.serving.request_limits import RequestLimits

M = TypeVar("M", bound=Model)
Answer = Callable[[Access, bytes], Awaitable[Model]]
"""Answers one request of a mover, given its rights and the body."""

Endpoint = Callable[[Request], Awaitable[Response]]

_PATHS: Final = frozenset({SIGN_PATH, CREDENTIALS_PATH, NEW_DATA_KEY_PATH, UNWRAP_PATH})
_ACCESS_KEY: Final = "cinderblock.access"
_FAULT_KEY: Final = "cinderblock.fault"
"""Keys in a request's scope, for its line in the log."""

LINE_SECONDS: Final = 60.0
"""How long further successful requests of a pod to the same path are not logged. Metrics count them."""
REFUSAL_LINE_SECONDS: Final = 1.0
"""The same for refusals of one address for one reason."""
_LINES: Final = 4096
_LINES_OF_OWNER: Final = 64

_access_logger = logging.getLogger(BROKER_ACCESS_LOGGER)
_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the broker that the application needs.

    Attributes:
        authenticator: finds out what a mover may do.
        stores: opens shared stores.
        sessions: gets session credentials.
        turns: limits the requests of each namespace.
        packs: tells which packs restores of other namespaces may read.
    """

    authenticator: Authenticator
    stores: StoreSecrets
    sessions: Sessions
    turns: NamespaceTurns
    packs: GrantedPacks


def make_app(services: Services, settings: BrokerSettings, metrics: BrokerMetrics) -> ASGIApp:
    """Return the application."""
    handlers = _Handlers(services)
    answers: dict[str, Answer] = {
        SIGN_PATH: handlers.sign,
        CREDENTIALS_PATH: handlers.credentials,
        NEW_DATA_KEY_PATH: handlers.new_data_key,
        UNWRAP_PATH: handlers.unwrap,
    }
    endpoints = {
        path: _endpoint(answer, services, settings, freshly=path == CREDENTIALS_PATH)
        for path, answer in answers.items()
    }
    inner = _Faults(_Dispatcher(endpoints))
    return _Recorded(RequestLimits(inner, settings, faults.refuse, "broker"), metrics)


class _Dispatcher:
    """Calls the endpoint of a path. All endpoints accept only POST."""

    def __init__(self, endpoints: Mapping[str, Endpoint]) -> None:
        self._endpoints = endpoints

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process one request."""
        endpoint = self._endpoints.get(scope["path"])
        if endpoint is None:
            response = faults.refuse(404, "The broker has no such path.")
        elif scope["method"] != "POST":
            response = faults.refuse(405, "The broker answers only POST.")
        else:
            response = await endpoint(Request(scope, receive))
        await response(scope, receive, send)


class _Handlers:
    """The answers to authenticated movers."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def sign(self, access: Access, body: bytes) -> Model:
        """Sign one request to the S3 server. Raises AccessDenied unless movers of the store use signed requests."""
        if access.store.mover_access.mode is not MoverAccess.SIGNED_REQUESTS:
            raise faults.not_granted(
                f"ClusterBackupStore {access.store.cluster_store} does not use signed requests (spec.moverAccess.mode)."
                " Start the operation again."
            )
        wanted = _parse(SignRequest, body)
        store = await self._services.stores.open_to_sign(access.store)
        grant = await self._services.packs.complete(access, store)
        checked = check_request(wanted, store.container_url, access.store.spec, grant)
        return SignAnswer(headers=store.signer.sign(checked.method, checked.url, checked.headers))

    async def credentials(self, access: Access, body: bytes) -> Model:
        """Return session credentials."""
        del body
        store = await self._services.stores.open(access.store)
        return await self._services.sessions.credentials(access, store)

    async def new_data_key(self, access: Access, body: bytes) -> Model:
        """Return a new data key."""
        _parse(NewDataKeyRequest, body or b"{}")
        store = await self._services.stores.open(access.store)
        return data_keys.new_data_key(access.grant, store.keys)

    async def unwrap(self, access: Access, body: bytes) -> Model:
        """Open a wrapped data key."""
        wanted = _parse(UnwrapRequest, body)
        store = await self._services.stores.open(access.store)
        return data_keys.unwrap(wanted, access.grant, store.keys)


def _endpoint(answer: Answer, services: Services, settings: BrokerSettings, *, freshly: bool) -> Endpoint:
    async def handle(request: Request) -> Response:
        address = request.client.host if request.client else ""
        # Session credentials count for much longer than a cached answer: their pod must run when they are given out.
        authorization = request.headers.get("authorization", "")
        access = await services.authenticator.authenticate(authorization, address, freshly=freshly)
        request.scope[_ACCESS_KEY] = access
        async with services.turns.turn(access.pod.namespace):
            body = await read_body(request, settings.body_limit, settings.body_seconds)
            model = await answer(access, body)
        content = model.model_dump_json(by_alias=True, exclude_none=True)
        # The answers contain credentials and keys.
        return Response(content, headers={"Cache-Control": "no-store"}, media_type="application/json")

    return handle


def _parse(model: type[M], body: bytes) -> M:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))[:100]
        raise InvalidInput(f"The body is malformed at {field or 'its beginning'}: {first['msg'][:200]}.") from None


class _Faults:
    """Turns errors into answers. An error after the beginning of an answer ends the connection."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process one request."""
        try:
            await self._inner(scope, receive, send)
        except CinderblockError as error:
            scope[_FAULT_KEY] = error
            await faults.from_error(error)(scope, receive, send)
        except Exception:
            _logger.exception("A request failed unexpectedly")
            await faults.unexpected()(scope, receive, send)


class _Recorded:
    """Measures each request, and logs the first of each kind in a while: path, code, duration, and who sent it.

    The line has no headers and no bodies, so no token, no signature and no key. The reason of a refusal is part of it.
    """

    def __init__(self, inner: ASGIApp, metrics: BrokerMetrics) -> None:
        self._inner = inner
        self._metrics = metrics
        self._lines: TtlCache[bool] = TtlCache(_LINES, _LINES_OF_OWNER, time.monotonic)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Process one request."""
        if scope["type"] != "http":
            await self._inner(scope, receive, send)
            return
        started, code = time.monotonic(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            await self._inner(scope, receive, send_and_note)
        finally:
            self._record(scope, code, time.monotonic() - started)

    def _was_logged(self, key: str, owner: str, code: int) -> bool:
        """Return whether a line of this kind was logged recently. A backup asks for thousands of signatures."""
        if self._lines.get(key) is not None:
            return True
        self._lines.put(key, owner, True, LINE_SECONDS if code < 400 else REFUSAL_LINE_SECONDS)
        return False

    def _record(self, scope: Scope, code: int, seconds: float) -> None:
        path = scope["path"] if scope["path"] in _PATHS else "other"
        self._metrics.observe_request(path, code, seconds)
        client, access, fault = scope.get("client"), scope.get(_ACCESS_KEY), scope.get(_FAULT_KEY)
        address = client[0] if client else ""
        fields: dict[str, object] = {
            "client": address,
            "milliseconds": round(1000 * seconds, 1),
        }
        if isinstance(access, Access):
            fields |= {
                "namespace": access.pod.namespace,
                "pod": access.pod.name,
                "operation": access.operation,
                "store": access.store.cluster_store,
            }
        if isinstance(fault, CinderblockError):
            self._metrics.count_refusal(str(fault.reason))
            fields |= {"reason": str(fault.reason), "cause": fault.message}
        pod = access.pod.uid if isinstance(access, Access) else ""
        if self._was_logged(f"{address} {pod} {path} {code} {fields.get('reason', '')}", pod or address, code):
            return
        level = logging.WARNING if code in (401, 403) else logging.INFO
        _access_logger.log(level, "%s %s %s", scope["method"], path, code, extra=fields)
