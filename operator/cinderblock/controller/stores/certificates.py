"""The certificates in a ca.crt, for tasks of movers. Tools add text around them, which may be of any encoding."""

from __future__ import annotations

import re
from typing import Final

_BLOCK: Final = re.compile(
    rb"-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----[A-Za-z0-9+/=\s]+-----END \1-----", re.ASCII
)


def certificates_in(content: bytes) -> str:
    """Return the PEM certificates in a file, without the text around them (RFC 7468, section 2); empty: it has none."""
    return "".join(f"{block.group().decode('ascii')}\n" for block in _BLOCK.finditer(content))
