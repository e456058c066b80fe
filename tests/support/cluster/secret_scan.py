"""Search everything that was recorded for every Secret of the cluster."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote

from tests.support.cluster.cluster import KubeCluster
from tests.support.cluster.recorder import OPERATOR, Recorder

SHORTEST = 12
"""Characters. Shorter values may be words that occur elsewhere for another reason."""
PUBLIC_KEYS = frozenset({"AWS_ACCESS_KEY_ID", "ca.crt", "tls.crt"})
"""Keys of Secrets whose values are public."""
TOKEN = re.compile(r"\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.")
"""A signed token, such as those of ServiceAccounts, which are not in any Secret."""


def forms(secret: str) -> tuple[str, ...]:
    """Return the forms in which a secret may be exposed."""
    encoded = base64.b64encode(secret.encode()).decode()
    return tuple({secret, encoded, json.dumps(secret)[1:-1], quote(secret, safe="")})


class SecretScanner:
    """Know all Secrets that ever existed, and search everything that a recorder has seen for them.

    Attributes:
        recorder: the recorder.
    """

    def __init__(self, kube: KubeCluster, recorder: Recorder) -> None:
        self._kube = kube
        self.recorder = recorder
        self._known: dict[str, str] = {}
        self._judged = 0

    def learn(self) -> None:
        """Record the Secrets that exist now."""
        for item in self._kube.items("secrets"):
            if item["type"].startswith("helm.sh/"):
                continue
            for key, value in (item.get("data") or {}).items():
                self._remember(f"{item['metadata']['namespace']}/{item['metadata']['name']} {key}", key, value)

    def forget(self, where: str) -> None:
        """Stop looking for a planted secret. Its Secret must be gone, or it is learned again."""
        self._known = {secret: place for secret, place in self._known.items() if place != where}

    def _remember(self, where: str, key: str, value: str) -> None:
        try:
            text = base64.b64decode(value).decode().strip()
        except UnicodeDecodeError:
            text = value
        if key not in PUBLIC_KEYS and len(text) >= SHORTEST:
            self._known[text] = where

    def leaks(self) -> list[str]:
        """Return the Secrets that were exposed since the last call."""
        new = self.recorder.everything(self._judged)
        self._judged += len(new)
        seen = "\n".join(new)
        found = [where for secret, where in self._known.items() if any(form in seen for form in forms(secret))]
        return [*found, *(f"a token: {match.group()[:24]}..." for match in TOKEN.finditer(seen))]

    def has_operator_log(self) -> bool:
        """Return whether the operator's log was recorded: without it, a scan proves nothing."""
        return bool(self.recorder.text_of(OPERATOR))
