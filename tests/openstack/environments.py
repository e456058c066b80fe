"""Virtualenvs of OpenStack's own programs, apart from ours: their dependencies are many and none of ours.

``python -m tests.openstack.environments cinder`` makes one and prints the path of its Python. What is in it stands in
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
    """Folder with the programs of the environment ``name``; it is made if it is not there.

    Raises subprocess.CalledProcessError if that fails.
    """
    lock = LOCKS / f"{name}.txt"
    digest = hashlib.sha256(sys.version.encode() + lock.read_bytes()).hexdigest()[:12]
    home = caching.directory("openstack")
    wanted = home / f"{name}-{digest}"
    with caching.locked(home / f"{name}.lock"):
        if not (wanted / ".ready").exists():
            _make(wanted, lock)
    return wanted / "bin"


def _make(wanted: Path, lock: Path) -> None:
    environment = os.environ | {"UV_NATIVE_TLS": "true", "UV_PYTHON_DOWNLOADS": "never"}
    python = wanted / "bin" / "python"
    for arguments in (
        ["venv", "--clear", "--python", sys.executable, str(wanted)],
        ["pip", "sync", "--python", str(python), str(lock)],
    ):
        subprocess.run([_uv(), *arguments, "--quiet"], env=environment, check=True)
    (wanted / ".ready").touch()


def _uv() -> str:
    """The program uv: of this machine, else the one that tests/setup.sh has put into the cache."""
    ours = sorted(caching.directory("").glob("uv-*/bin/uv"))
    return shutil.which("uv") or str(ours[-1])


if __name__ == "__main__":
    print(programs(sys.argv[1]) / "python")
