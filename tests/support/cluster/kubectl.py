"""kubectl, as users run it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.toolchain import tool

ROOT = Path(__file__).parents[3]


def kubectl(kubeconfig: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl in the repository's root. Raise CalledProcessError if it fails."""
    command = [str(tool("kubectl")), "--kubeconfig", str(kubeconfig), *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)


def as_user(kubeconfig: Path, user: dict[str, Any], path: Path) -> Path:
    """Write a kubeconfig for the same server with another user."""
    content = yaml.safe_load(kubeconfig.read_text())
    for entry in content["clusters"]:
        authority = entry["cluster"].get("certificate-authority")
        if authority:
            entry["cluster"]["certificate-authority"] = str((kubeconfig.parent / authority).resolve())
    for entry in content["users"]:
        entry["user"] = user
    path.write_text(yaml.safe_dump(content))
    return path
