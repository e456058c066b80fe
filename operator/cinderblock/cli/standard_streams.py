"""The descriptors 0, 1 and 2 of the process: they always exist, and a failed write is noticed, not raised.

A descriptor that was closed by the caller (``<&- >&-``, some cron daemons and supervisors) would be given to the next
file that is opened. A later ``print`` would then write into the volume, or reading a volume would change its place.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import TextIO

from typing_extensions import override


def open_standard_descriptors() -> None:
    """Open /dev/null in place of each standard descriptor that is closed. Call this before any file is opened."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # open(2) returns the lowest free number, and all lower ones are open. Our own processes need it, too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    # Python has no stream for a descriptor that was closed when it started.
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115


class OutputFile(io.FileIO):
    """A descriptor for output. After the first write that fails, all output is dropped.

    So a full disk or a reader that has gone does not end work that is half done.

    Attributes:
        error: why the first write failed; None if none has.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.error: OSError | None = None

    @override
    def write(self, content: object, /) -> int:
        view = memoryview(content)  # type: ignore[arg-type]
        if self.error is None:
            try:
                written = super().write(view)
            except OSError as error:
                self.error = error
            else:
                if written is not None:
                    return written
                self.error = BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        return view.nbytes

    def drop(self) -> None:
        """Drop all further output, and what is still buffered."""
        self.error = self.error or InterruptedError(errno.EINTR, os.strerror(errno.EINTR))


def guard(stream: TextIO, descriptor: int) -> tuple[TextIO, OutputFile | None]:
    """Return a stream like ``stream`` whose writes do not raise, and its file.

    A stream that does not belong to the descriptor, as in tests, is returned unchanged, without a file.
    """
    try:
        is_standard = isinstance(stream, io.TextIOWrapper) and stream.fileno() == descriptor
    except (OSError, ValueError):
        is_standard = False
    if not (is_standard and isinstance(stream, io.TextIOWrapper)):
        return stream, None
    file = OutputFile(descriptor)
    is_direct = stream.line_buffering or stream.write_through or stream.isatty()
    guarded = io.TextIOWrapper(
        io.BufferedWriter(file), stream.encoding, errors="backslashreplace", line_buffering=is_direct
    )
    return guarded, file


def has_failed(stream: TextIO) -> bool:
    """Return whether a write of a stream of `guard` has failed, so that nobody reads what follows."""
    buffer = getattr(stream, "buffer", None)
    file = getattr(buffer, "raw", None)
    return isinstance(file, OutputFile) and file.error is not None
