"""How bodies leave and arrive: in slices, without being copied."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from cinderblock.store.bandwidth import Throttle, no_throttle

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from botocore.response import StreamingBody

SLICE: Final = 64 * 1024
"""Bytes read at once where reading is limited."""
EXPECT_CONTINUE_BYTES: Final = 1024**2
"""Bytes from which a body is announced (Expect: 100-continue), so that a refusal comes before it is sent. A server that
does not know the announcement costs one second, and every other one a round trip."""


class ThrottledBody:
    """A body as botocore and urllib3 want it: a file, read once for the signature and once for the line.

    urllib3 sends what it reads, 16 KiB at a time. Sending a whole body at once would have to be over within the
    connect time-out, which a slow line cannot do with 64 MiB; and there would be no place for a pace. Measured with 64
    MiB to a server on the same machine: the same wall time and CPU as sending it whole.
    """

    def __init__(self, body: memoryview, requeue_policy: Throttle) -> None:
        self._body = body
        self._pace = requeue_policy
        self._active_pace: Throttle = no_throttle
        self._position = 0

    def __len__(self) -> int:
        return self._body.nbytes

    def read(self, amount: int = -1) -> memoryview:
        """The next ``amount`` bytes, fewer at the end."""
        end = self._body.nbytes if amount < 0 else self._position + amount
        part = self._body[self._position : end]
        self._active_pace(part.nbytes)
        self._position += part.nbytes
        return part

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, counted from the beginning or from the end."""
        self._position = offset if whence == os.SEEK_SET else self._body.nbytes + offset
        return self._position

    def tell(self) -> int:
        """Position in bytes."""
        return self._position

    def enter_line(self) -> None:
        """What is read from now on is sent."""
        self._active_pace = self._pace


def announce_large_only(params: dict[str, Any], **_: Any) -> None:
    """botocore's event before-call: it has announced every body."""
    if isinstance(params["body"], ThrottledBody) and len(params["body"]) < EXPECT_CONTINUE_BYTES:
        del params["headers"]["Expect"]


def start_throttling(request: AWSPreparedRequest, **_: Any) -> None:
    """botocore's event before-send: the signature has been made."""
    if isinstance(request.body, ThrottledBody):
        request.body.enter_line()


def receive(body: StreamingBody, requeue_policy: Throttle) -> bytes:
    """Everything of a body. Raises what botocore raises, also if it ends early (IncompleteReadError)."""
    with closing(body):
        if requeue_policy is no_throttle:
            return body.read()
        slices = []
        while part := body.read(SLICE):
            requeue_policy(len(part))
            slices.append(part)
        return b"".join(slices)
