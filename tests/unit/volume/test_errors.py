from __future__ import annotations

import errno
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cinderblock.volume.errors import format_path, source_error, target_error


def read_back(text: str) -> bytes:
    r"""Return the bytes of a formatted path."""
    return re.sub(
        rb"\\\\|\\x([0-9a-f]{2})",
        lambda match: bytes.fromhex(match[1].decode()) if match[1] else b"\\",
        text.encode(),
    )


@given(st.binary(min_size=1, max_size=60) | st.text(min_size=1, max_size=60).map(lambda t: t.encode("utf-8", "ignore")))
@example(b"\\xff")
@example(b"\xff")
@example("\u0085\u200b\U000e0001".encode())
def test_formatted_path_is_printable_and_reversible(path: bytes) -> None:
    assert format_path(path).isprintable()
    assert read_back(format_path(path)) == (path or b".")


def test_ordinary_names_are_printed_unchanged() -> None:
    assert format_path("dir/größe 日本".encode()) == "dir/größe 日本"
    assert format_path(b"") == "."
    assert format_path(b"a\nb\xe9\\") == "a\\x0ab\\xe9\\\\"


@pytest.mark.parametrize(
    "code",
    [
        errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENOENT, errno.EPERM, errno.EACCES, errno.EBUSY,
        errno.ENXIO, errno.ENODEV, errno.ENOTCONN,
    ],
)  # fmt: skip
def test_target_error_states_cause_remedy_and_path(code: int) -> None:
    message = target_error(OSError(code, ""), "write", b"dir/file").message
    reason, _, advice = message.partition(": ")
    assert reason
    assert advice.endswith(f"({errno.errorcode[code]}: cannot write dir/file)")
    assert len(message) < 255


def test_unknown_error_has_the_message_of_the_kernel() -> None:
    message = source_error(OSError(errno.ENOLCK, ""), "read", b"file").message
    assert message == "No locks available (ENOLCK: cannot read file)"
