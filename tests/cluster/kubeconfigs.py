"""Writes kubeconfig files. They are JSON, which is YAML too."""

import base64
import json
from pathlib import Path

from tests.cluster import files


def write(path: Path, server: str, authority: Path, token: str) -> Path:
    """Write a kubeconfig that verifies the server and carries its authority inside; only its owner can read it."""
    certificate = base64.b64encode(authority.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": server, "certificate-authority-data": certificate}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    return files.write(path, json.dumps(content, indent=2), 0o600)
