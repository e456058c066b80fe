"""Run a command that uses asyncio, which is not imported by others: that takes 0.05 s."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

from cinderblock.cli.signals import STOP_SIGNALS, Interrupted, report


def run_async(name: str, main: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine, and cancel it on the first of STOP_SIGNALS. Raises Interrupted then.

    An exception that is raised between two lines of an event loop may be lost, so the loop handles the signals itself.
    """
    received: list[int] = []

    async def supervised() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: int) -> None:
            received.append(number)
            for other in handled:
                loop.remove_signal_handler(other)
            report(name, number)
            if task is not None:
                task.cancel()

        handled = [number for number in STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        for number in handled:
            loop.add_signal_handler(number, stop, number)
        await main

    try:
        asyncio.run(supervised())
    except asyncio.CancelledError:
        if not received:
            raise
        raise Interrupted(received[0]) from None
