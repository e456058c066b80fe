"""Virtualenvs of OpenStack's programs, which have many dependencies that Cinderblock does not have.

``python -m tests.openstack.environments cinder`` creates one and prints the path of its Python. It is locked by
``locks/<name>.txt``, which ``uv pip compile --universal --no-annotate --no-header`` makes from ``locks/<name>.in``.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.cluster import caching

LOCKS = Path(__file__).with_name("locks")


def programs(name: str) -> Path:
    """Return the directory with the programs of an environment, which is created if it is missing.

    Raises subprocess.CalledProcessError if that fails.
    """
    lock = LOCKS / f"{name}.txt"
    digest = hashlib.sha256(sys.version.encode() + lock.read_bytes()).hexdigest()[:12]
    home = caching.directory("openstack")
    directory = home / f"{name}-{digest}"
    with caching.locked(home / f"{name}.lock"):
        if not (directory / ".ready").exists():
            _make(directory, lock)
    return directory / "bin"


def _make(directory: Path, lock: Path) -> None:
    environment = os.environ | {"UV_NATIVE_TLS": "true", "UV_PYTHON_DOWNLOADS": "never"}
    python = directory / "bin" / "python"
    for arguments in (
        ["venv", "--clear", "--python", sys.executable, str(directory)],
        ["pip", "sync", "--python", str(python), str(lock)],
    ):
        subprocess.run([_uv(), *arguments, "--quiet"], env=environment, check=True)
    (directory / ".ready").touch()


def _uv() -> str:
    """Return the path of uv: this machine's, or the one that tests/setup.sh put into the cache."""
    ours = sorted(caching.directory("").glob("uv-*/bin/uv"))
    return shutil.which("uv") or str(ours[-1])


if __name__ == "__main__":
    print(programs(sys.argv[1]) / "python")
