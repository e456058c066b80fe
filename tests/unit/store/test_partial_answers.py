"""An answer that ends too early leaves nothing of its content in the exceptions that report it."""

from __future__ import annotations

import http.client

from urllib3.exceptions import ProtocolError

from cinderblock.store.failures import forget_partial_answers


def test_content_goes_from_all_exceptions_of_a_chain() -> None:
    first, second = http.client.IncompleteRead(b"a" * 100), http.client.IncompleteRead(b"b" * 100)
    second.__cause__ = first
    error = ProtocolError("Connection broken")
    error.__context__ = second
    forget_partial_answers(error)
    assert (first.partial, second.partial) == (b"", b"")
    assert (first.args, second.args) == ((b"",), (b"",))
