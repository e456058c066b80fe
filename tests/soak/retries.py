"""Retry while the API server is down, as a person would."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from tests.support.cluster.cluster import KubeClusterError

T = TypeVar("T")

PATIENCE = 180.0
"""Seconds: the API server is back after some 5."""
PASSING = (
    "refused", "connection", "EOF", "TLS handshake", "etcdserver", "timed out", "timeout", "had not ended",
    "not yet available", "unable to handle the request", "InternalError", "the server is currently unable",
    "unexpected", "Unauthorized", "Forbidden", "forbidden", "ServiceUnavailable", "leader changed",
    "http2", "too many requests", "shutting down", "apiserver not ready", "no matches for kind",
    "the server could not find the requested resource",
)  # fmt: skip
"""Errors while a killed part recovers: for some seconds, the API server knows neither its roles nor its CRDs."""


def with_retries(what: Callable[[], T]) -> T:
    """Do it again while it fails for a reason that passes."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return what()
        except KubeClusterError as error:
            if time.monotonic() > deadline or not any(word in str(error) for word in PASSING):
                raise
            time.sleep(1)
