"""Signals that ask a command to stop: it says so at once, stops in order, and exits with 128 and the signal's number.

It says so at once because the end may take a while: uploads in progress are awaited, and SIGKILL may come first.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop. asyncio lets only KeyboardInterrupt pass through its callbacks.

    Attributes:
        signal: the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.signal = signal.Signals(number)


def raise_on_signals(name: str) -> None:
    """Raise Interrupted in the main thread for each of STOP_SIGNALS, except those that the caller ignores (nohup).

    ``name`` is the command for the message on standard error.
    """

    def interrupt(number: int, _: FrameType | None) -> None:
        restore_defaults()
        report(name, number)
        raise Interrupted(number)

    if threading.current_thread() is not threading.main_thread():
        return
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)


def report(name: str, number: int) -> None:
    """Name the signal on standard error. Not by print: the signal may have come in the middle of one."""
    with contextlib.suppress(OSError):
        os.write(2, f"cinderblock {name}: stopped by {signal.Signals(number).name}\n".encode())


def restore_defaults() -> None:
    """Let the next signal end the process at once."""
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
