"""The base class of context managers that hold descriptors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closeable(ABC):
    """An object that closes itself at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Close all descriptors. May be repeated."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
