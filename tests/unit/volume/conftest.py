"""Fixtures with real file systems and devices. Tests fake only errors that no file system returns on demand.

Mounts and loop devices need root; tests that need them are skipped for other users.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cinderblock.volume.capabilities import ProcessCapabilities

MIB = 1 << 20


def _need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")


@pytest.fixture
def as_root() -> None:
    """Skip the test unless it runs as root."""
    _need_root()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return an empty directory to back up."""
    return _directory(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Return an empty directory to restore to."""
    return _directory(tmp_path / "target")


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts until the test ends: ``mount("-t", "tmpfs", "tmpfs", at=path)``."""
    _need_root()
    mounted: list[Path] = []

    def mount_at(*arguments: str | Path, at: Path) -> Path:
        subprocess.run(["mount", *map(str, arguments), str(at)], check=True)
        mounted.append(at)
        return at

    yield mount_at
    for at in reversed(mounted):
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture
def ext4(tmp_path: Path, mount: Callable[..., Path]) -> Callable[..., Path]:
    """Return a function that makes an ext4 volume, by default of 16 MiB, with a lost+found like real volumes.

    ``ext4(more=("-I", "128"))`` gives options to mkfs.ext4.
    """

    def make(name: str = "volume", mib: int = 16, block: int = 4096, more: tuple[str, ...] = ()) -> Path:
        image = tmp_path / f"{name}.img"
        with image.open("xb") as file:
            file.truncate(mib * MIB)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", str(block), *more, str(image)], check=True)
        return mount("-o", "loop", image, at=_directory(tmp_path / name))

    return make


@pytest.fixture
def loop_device(tmp_path: Path) -> Iterator[Callable[..., tuple[str, Path]]]:
    """Return a function that makes a loop device over a new image, and returns the paths of both."""
    _need_root()
    devices = []

    def make(name: str = "device", mib: int = 16, options: tuple[str, ...] = ()) -> tuple[str, Path]:
        image = tmp_path / f"{name}.img"
        with image.open("xb") as file:
            file.truncate(mib * MIB)
        command = ["losetup", "--find", "--show", *options, str(image)]
        device = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
        devices.append(device)
        return device, image

    yield make
    for device in devices:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def capabilities() -> ProcessCapabilities:
    """Return the rights of the tests' process."""
    return ProcessCapabilities.of_this_process()


def _directory(path: Path) -> Path:
    path.mkdir()
    return path
