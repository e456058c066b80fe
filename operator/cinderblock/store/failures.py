"""Free what a failed call has read, although its exception is still in use.

A traceback keeps the local variables of every frame that the exception has passed: an answer of a server has up to 4
MiB, a part of a manifest more. Such a variable, or a task, often refers to the exception in turn. Then all of it stays
until the garbage collector visits old objects, which it does rarely in a process that holds many of them.
"""

from __future__ import annotations

import http.client
import traceback
from collections.abc import Iterator

from cinderblock.errors import CinderblockError


def release_answers(error: BaseException) -> None:
    """Clear the local variables in the tracebacks of an exception and of its causes.

    The frames stay, so a log still shows the lines. A frame that runs is left alone. One of our errors has a message
    for people, so its causes go as well: those of libraries quote whole answers.
    """
    for link in list(_chain(error)):
        traceback.clear_frames(link.__traceback__)
    if isinstance(error, CinderblockError):
        error.__cause__ = error.__context__ = None


def forget_partial_answers(error: BaseException) -> None:
    """Empty what an exception and its causes keep of an answer that ended too early.

    http.client.IncompleteRead keeps everything that was read, in two places. A cycle of exceptions would keep it until
    the garbage collector finds it.
    """
    for link in list(_chain(error)):
        if isinstance(link, http.client.IncompleteRead):
            link.partial = b""
            link.args = (b"",)


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and everything that led to it."""
    seen: dict[int, BaseException] = {}
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is not None and id(link) not in seen:
            seen[id(link)] = link
            yield link
            waiting += [link.__cause__, link.__context__]
