"""Tests of the tree comparison itself: it finds every single difference between two trees, and no other."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.mover import compare, trees
from tests.support.mover.compare import compare_trees
from tests.support.mover.trees import ACCESS_ACL, make_tree


def _replace(path: Path, make: Callable[[Path], object]) -> None:
    times = path.parent.stat()
    path.unlink()
    make(path)
    os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))


def _write(path: Path, offset: int, data: bytes) -> None:
    times = path.stat()
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, offset)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "content": (lambda root: _write(root / "sizes" / "3333333", 2_000_000, b"\0"), "content differs at byte 2000000"),
    "a byte in a hole": (lambda root: _write(root / "sparse" / "huge", 1 << 38, b"x"), "content differs at byte"),
    "mode": (lambda root: (root / "modes" / "file-644").chmod(0o640), "mode 0o644 and 0o640"),
    "mtime": (lambda root: os.utime(root / "names" / "plain", ns=(0, 5)), "mtime "),
    "mtime of a symlink": (
        lambda root: os.utime(root / "symlinks" / "to-3", ns=(0, 5), follow_symlinks=False),
        "mtime",
    ),
    "mtime of the root": (lambda root: os.utime(root, ns=(0, 5)), "'.': mtime"),
    "target": (
        lambda root: _replace(root / "links" / "a" / "symlink", lambda path: path.symlink_to("elsewhere")),
        "points to b'nowhere' and b'elsewhere'",
    ),
    "kind": (lambda root: _replace(root / "names" / "plain", os.mkfifo), "kind -rw-r--r-- and prw-r--r--"),
    "missing": (lambda root: _replace(root / "names" / "plain", lambda _path: None), "only in the first"),
    "extra": (lambda root: (root / "names" / "extra").touch(), "only in the second"),
    "attribute": (
        lambda root: os.setxattr(root / "attributes" / "dir", "user.new", b""),
        "attribute user.new None and",
    ),
    "acl": (
        lambda root: os.setxattr(root / "attributes" / "user", "system.posix_acl_access", ACCESS_ACL),
        "attribute system.posix_acl_access",
    ),
    "space": (lambda root: os.posix_fallocate(_open(root / "sparse" / "only-hole"), 0, 1 << 20), "blocks 0 and 2048"),
    "hard link": (
        lambda root: _replace(root / "links" / "c" / "linked", lambda path: path.write_bytes(b"")),
        "hard link to 'links/a/linked' and to 'links/c/linked'",
    ),
}


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR)


@pytest.fixture
def pair(source: Path, target: Path) -> tuple[Path, Path]:
    """Return two trees made from the same seed."""
    for root in (source, target):
        make_tree(str(root), privileged=os.geteuid() == 0)
    return source, target


def test_same_seed_makes_the_same_tree(pair: tuple[Path, Path]) -> None:
    assert compare_trees(str(pair[0]), str(pair[1]), holes=True) == []


def test_another_seed_makes_another_tree(source: Path, target: Path) -> None:
    make_tree(str(source), seed=1, privileged=False)
    make_tree(str(target), seed=2, privileged=False)
    assert compare_trees(str(source), str(target)) != []


@pytest.mark.parametrize("what", CHANGES)
def test_single_change_is_found(pair: tuple[Path, Path], what: str) -> None:
    change, expected = CHANGES[what]
    change(pair[1])
    found = compare_trees(str(pair[0]), str(pair[1]), holes=True)
    assert any(expected in line for line in found), found


def test_changed_owner_is_found_or_ignored(pair: tuple[Path, Path], as_root: None) -> None:
    os.chown(pair[1] / "names" / "plain", 7, 8)
    assert compare_trees(str(pair[0]), str(pair[1])) == ["'names/plain': owner 0:0 and 7:8"]
    assert compare_trees(str(pair[0]), str(pair[1]), owners=False) == []


def test_mtimes_can_be_ignored(pair: tuple[Path, Path]) -> None:
    os.utime(pair[1] / "names" / "plain", ns=(0, 5))
    assert compare_trees(str(pair[0]), str(pair[1]), mtimes=False) == []


def test_both_modules_run_with_plain_python(tmp_path: Path) -> None:
    def run(module: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert module is not None
        command = [sys.executable, "-I", "-S", module, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)

    for name in ("a", "b"):
        assert run(trees.__file__, "make", name, "--unprivileged").returncode == 0
    assert run(compare.__file__, "a", "b").returncode == 0
    edited = run(trees.__file__, "edit", "b", "--edits", "3")
    assert len(edited.stdout.splitlines()) == 3
    compared = run(compare.__file__, "a", "b")
    assert compared.returncode == 1
    assert compared.stdout.splitlines()
