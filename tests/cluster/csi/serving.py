"""A gRPC server on a Unix socket. Its calls are plain methods that take a request and return a response.

The services are read from the descriptors, so a call that no servicer has answers UNIMPLEMENTED by itself. Calls that
change something run one at a time: a driver for tests needs to be right more than it needs to be fast.
"""

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc  # type: ignore[import-untyped]
from google.protobuf import message_factory, text_format  # type: ignore[import-untyped]

from tests.cluster.csi.commands import CommandFailedError
from tests.cluster.csi.faults import Faults
from tests.cluster.csi.refusals import RefusalError

LONGEST_SOCKET_PATH = 107
WORKERS = 16
STOP_SECONDS = 2

logger = logging.getLogger(__name__)


class Server:
    """One socket with any number of services."""

    def __init__(self, path: str, faults: Faults) -> None:
        if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
            raise ValueError(f"the socket's path is longer than {LONGEST_SOCKET_PATH} bytes: {path}")
        self._path = path
        self._faults = faults
        self._turn = threading.Lock()
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=WORKERS))

    def add(self, service: Any, *servicers: object) -> None:
        """Serve the described service with the methods of the servicers: CreateVolume is `create_volume`."""
        handlers = {}
        for method in service.methods:
            function = _find(servicers, method.name)
            if function is not None:
                handlers[method.name] = self._handler(method, function)
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))

    def start(self) -> None:
        """Begin to serve, in place of whatever a dead process left on the path."""
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        self._remove_socket()
        self._server.add_insecure_port(f"unix:{self._path}")
        self._server.start()

    def stop(self) -> None:
        """Let the calls in flight end for a moment, and remove the socket."""
        self._server.stop(STOP_SECONDS).wait()
        self._remove_socket()

    def _remove_socket(self) -> None:
        if os.path.lexists(self._path):
            os.unlink(self._path)

    def _handler(self, method: Any, function: Callable[[Any], Any]) -> Any:
        codec = {
            "request_deserializer": message_factory.GetMessageClass(method.input_type).FromString,
            "response_serializer": message_factory.GetMessageClass(method.output_type).SerializeToString,
        }
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(self._stream(method.name, function), **codec)
        return grpc.unary_unary_rpc_method_handler(self._unary(method.name, function), **codec)

    def _unary(self, name: str, function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
        def call(request: Any, context: Any) -> Any:
            try:
                with self._faults.around(name, _describe(name, request)), self._turn:
                    response = function(request)
            except (RefusalError, CommandFailedError, OSError) as error:
                _abort(name, error, context)
            return response

        return call

    def _stream(self, name: str, function: Callable[[Any], Iterator[Any]]) -> Callable[[Any, Any], Iterator[Any]]:
        def call(request: Any, context: Any) -> Iterator[Any]:
            try:
                with self._faults.around(name, _describe(name, request)):
                    yield from function(request)
            except (RefusalError, CommandFailedError, OSError) as error:
                _abort(name, error, context)

        return call


def _find(servicers: tuple[object, ...], name: str) -> Callable[[Any], Any] | None:
    snake = re.sub(r"(?<=.)(?=[A-Z])", "_", name).lower()
    found = (getattr(servicer, snake, None) for servicer in servicers)
    return next((function for function in found if function is not None), None)


def _describe(name: str, request: Any) -> str:
    """Return the request as one line without its secrets, and log it unless it is one of the empty, frequent ones."""
    shown = type(request).FromString(request.SerializeToString())
    if "secrets" in shown.DESCRIPTOR.fields_by_name:
        shown.ClearField("secrets")
    text: str = text_format.MessageToString(shown, as_one_line=True)
    if text:
        logger.info("%s %s", name, text)
    return text


def _abort(name: str, error: RefusalError | CommandFailedError | OSError, context: Any) -> None:
    if isinstance(error, RefusalError):
        code, message = error.code, error.message
    else:
        code, message = "INTERNAL", str(error)
    logger.warning("%s refused: %s: %s", name, code, message)
    context.abort(grpc.StatusCode[code], message)
