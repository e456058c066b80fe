"""Kubeconfig files and credential plugins for tests."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

SECRET = "eyJ-very-secret"
"""Credentials that no error, repr or file may show."""


def write_kubeconfig(
    path: Path,
    user: dict[str, Any],
    *,
    cluster: dict[str, Any] | None = None,
    context: dict[str, Any] | None = None,
    name: str = "main",
) -> Path:
    """Write a kubeconfig with one context, cluster and user, all of one name."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, **(context or {})}}],
        "clusters": [{"name": name, "cluster": {"server": "https://api.example.com:6443/", **(cluster or {})}}],
        "users": [{"name": name, "user": user}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


def write_plugin(path: Path, status: dict[str, Any], *, code: int = 0) -> dict[str, Any]:
    """Write a plugin that records each request, returns ``status`` and prints secrets; return its exec entry."""
    answer = json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status})
    path.write_text(
        "import os, sys\n"
        f"open({str(path.with_suffix('.runs'))!r}, 'a').write(os.environ['KUBERNETES_EXEC_INFO'] + chr(10))\n"
        f"print({answer!r})\n"
        f"print({SECRET!r}, os.environ.get('EXTRA'), sys.argv[1:], file=sys.stderr)\n"
        f"sys.exit({code})\n"
    )
    return {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(path), "--login"],
        "env": [{"name": "EXTRA", "value": "1"}],
        "provideClusterInfo": True,
    }


def plugin_requests(path: Path) -> list[dict[str, Any]]:
    """Return the requests that a plugin has recorded."""
    return [json.loads(line) for line in path.with_suffix(".runs").read_text().splitlines()]
