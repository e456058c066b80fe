"""The go command: found on this machine, or downloaded with any older Go.

Go's toolchains are published as a module like any other, so even a Go that is too old to build our tools can download
the one that does, from wherever this machine gets its modules. That module carries no file modes, hence the copy.
"""

import functools
import json
import os
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster import caching
from tests.cluster.errors import ClusterError

TOOLS = Path(__file__).parent / "tools"
"""Folders of Go modules, each with pins of its own where versions exclude each other."""

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def environment() -> dict[str, str]:
    """Return the environment for go: static binaries, only pinned modules, and no influence of outer settings."""
    outer = {name: value for name, value in os.environ.items() if name != "GOROOT"}
    return {**outer, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly", "GOWORK": "off"}


def module_directory(folder: str, module: str) -> Path:
    """Return where the files of a pinned module lie, downloading it if need be. Raises ClusterError."""
    answer = _json([str(go()), "mod", "download", "-json", module], TOOLS / folder)
    return Path(answer["Dir"])


def pinned(folder: str, module: str) -> str:
    """Return the version that a folder's go.mod asks of a module."""
    found = re.search(
        rf"^\s*(?:require )?{re.escape(module)} (v\S+)", (TOOLS / folder / "go.mod").read_text(), re.MULTILINE
    )
    if found is None:
        raise ClusterError(f"{TOOLS / folder / 'go.mod'} does not require {module}")
    return found[1]


@functools.cache
def go() -> Path:
    """Return a go command that is new enough for every pin. Raises ClusterError."""
    found = shutil.which("go")
    if found is None:
        raise ClusterError(
            "Go is not installed: apt-get install golang-go (any version; the right one is then fetched)"
        )
    needed = _needed()
    if _version(found) >= _numbers(needed):
        return Path(found)
    return _fetched(found, needed)


def _needed() -> str:
    """Return the newest Go version that any of the pins requires."""
    lines = [re.search(r"^go (\S+)", path.read_text(), re.MULTILINE) for path in TOOLS.glob("*/go.mod")]
    return max((line[1] for line in lines if line), key=_numbers)


def _version(command: str) -> tuple[int, ...]:
    # GOTOOLCHAIN=local: the question is what is here, not what it would fetch.
    answer = subprocess.run(
        [command, "env", "GOVERSION"],
        env={**os.environ, "GOTOOLCHAIN": "local"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return _numbers(answer.stdout)


def _numbers(version: str) -> tuple[int, ...]:
    """Make versions comparable: `go1.26.8` is (1, 26, 8)."""
    return tuple(int(number) for number in re.findall(r"\d+", version.partition("-")[0])[:3])


def _fetched(old: str, version: str) -> Path:
    kept = caching.directory("go") / version
    with caching.locked(kept.with_suffix(".lock")):
        if not kept.exists():
            _fetch(old, version, kept)
    return kept / "bin" / "go"


def _fetch(old: str, version: str, kept: Path) -> None:
    machine = platform.machine()
    module = f"golang.org/toolchain@v0.0.1-go{version}.linux-{_ARCHITECTURES.get(machine, machine)}"
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        # A module of its own: the folder's go.mod may be too new to be read by the old Go.
        Path(scratch, "go.mod").write_text("module scratch\n")
        source = _json([old, "mod", "download", "-json", module], Path(scratch), {"GOFLAGS": "-mod=mod"})["Dir"]
        copy = Path(scratch, "go")
        shutil.copytree(source, copy, copy_function=shutil.copyfile)
        for folder in [copy, *(path for path in copy.rglob("*") if path.is_dir())]:
            folder.chmod(0o755)
        for program in [*copy.glob("bin/*"), *copy.glob("pkg/tool/*/*")]:
            program.chmod(0o755)
        copy.rename(kept)


def _json(command: list[str], folder: Path, settings: Mapping[str, str] | None = None) -> dict[str, Any]:
    done = subprocess.run(
        command, cwd=folder, env={**environment(), **(settings or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-10:])
        raise ClusterError(f"`{' '.join(command)}` failed in {folder} (modules come from `go env GOPROXY`):\n{output}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
