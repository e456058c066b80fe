"""An event loop whose clock jumps to the next timer, so that hours pass at once and the load does not matter.

    @in_virtual_time
    async def test_something_slow() -> None:
        await asyncio.sleep(3600)

Only timers of the loop work: it does not wait for threads or sockets.
"""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

from typing_extensions import override

P = ParamSpec("P")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop with its own clock, which begins at 1000."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_JumpingSelector(self))

    @override
    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    @override
    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("everything waits, and there is no timer: nothing would ever happen again")
        self._loop.now += max(0.0, timeout)
        return super().select(0)


def virtual_clock() -> float:
    """Return the time of the running loop."""
    return asyncio.get_running_loop().time()


def in_virtual_time(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run an async test in its own loop with virtual time."""

    async def whole(work: Awaitable[None]) -> None:
        await work

    @functools.wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            work: Coroutine[Any, Any, None] = whole(test(*arguments, **named))
            runner.run(work)

    return run
