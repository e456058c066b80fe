"""How a call says no: one exception that carries the gRPC status, so that nothing below the server knows gRPC."""

from typing import Any


class RefusalError(Exception):
    """Ends a call with the gRPC status named by `code` (`NOT_FOUND`, `ALREADY_EXISTS`, ...)."""

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
