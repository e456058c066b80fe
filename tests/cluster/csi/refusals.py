"""The exception with which a call fails. It carries the gRPC status, so that only the server depends on gRPC."""

from typing import Any


class RefusalError(Exception):
    """End a call with the gRPC status named by `code` (`NOT_FOUND`, `ALREADY_EXISTS`, ...)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def require(request: Any, *fields: str) -> None:
    """Refuse a request in which one of the fields is empty, as the CSI specification demands."""
    present = {descriptor.name for descriptor, _ in request.ListFields()}
    for field in fields:
        if field not in present:
            raise RefusalError("INVALID_ARGUMENT", f"{field} is missing")
