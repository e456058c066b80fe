"""What everything that holds descriptors has in common: it is a context manager that closes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Closeable(ABC):
    """Base of what is to be closed at the end of a ``with`` block."""

    @abstractmethod
    def close(self) -> None:
        """Give up all descriptors. May be repeated."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
