"""Send bodies in slices, without copies."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING, Any, Final

from cinderblock.store.bandwidth import Throttle, no_throttle

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest

EXPECT_CONTINUE_BYTES: Final = 1024**2
"""Size from which a body is announced (Expect: 100-continue), so that the server can reject it before it is sent. A
server that ignores the announcement costs one second, any other one a round trip."""


class ThrottledBody:
    """A body as botocore and urllib3 expect it: a file.

    urllib3 reads and sends 16 KiB at a time. If it sent a whole body at once, that would have to end within the connect
    time-out, which a slow network cannot do with 64 MiB, and no throttle could act. Measured with 64 MiB to a server on
    the same machine: the same wall time and CPU as sending it whole.
    """

    def __init__(self, body: memoryview, throttle: Throttle) -> None:
        self.sha256 = hashlib.sha256(body).digest()
        self._body = body
        self._throttle = throttle
        self._active_throttle: Throttle = no_throttle
        self._position = 0

    @property
    def content(self) -> memoryview:
        """All bytes."""
        return self._body

    def __len__(self) -> int:
        return self._body.nbytes

    def read(self, amount: int = -1) -> memoryview:
        """Return the next ``amount`` bytes, fewer at the end."""
        end = self._body.nbytes if amount < 0 else self._position + amount
        part = self._body[self._position : end]
        self._active_throttle(part.nbytes)
        self._position += part.nbytes
        return part

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position that counts from the beginning or from the end, and return it."""
        self._position = offset if whence == os.SEEK_SET else self._body.nbytes + offset
        return self._position

    def tell(self) -> int:
        """Return the position in bytes."""
        return self._position

    def start_throttling(self) -> None:
        """Throttle all further reads: urllib3 sends what it reads from now on."""
        self._active_throttle = self._throttle


class Announcements:
    """Which bodies are announced (Expect: 100-continue). botocore announces all of them.

    Attributes:
        is_allowed: False after the server or a proxy has answered 417 Expectation Failed.
    """

    def __init__(self) -> None:
        self.is_allowed = True

    def choose(self, params: dict[str, Any], **_: Any) -> None:
        """Handle botocore's event before-call."""
        body = params["body"]
        if isinstance(body, ThrottledBody) and (not self.is_allowed or len(body) < EXPECT_CONTINUE_BYTES):
            del params["headers"]["Expect"]


def start_throttling(request: AWSPreparedRequest, **_: Any) -> None:
    """Handle botocore's event before-send: the request has been signed."""
    if isinstance(request.body, ThrottledBody):
        request.body.start_throttling()
