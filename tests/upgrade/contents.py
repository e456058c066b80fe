"""The content of a volume as plain data: recorded with a release, and compared with restores of its backups.

This uses only the standard library, and none of the tested code.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

Contents = dict[str, dict[str, Any]]
"""Properties of each path of a tree. A device has one path, ``""``."""


def contents(volume: Path) -> Contents:
    """Return all that a directory or an image holds: names, kinds, bytes, owners, modes, mtimes, links, attributes."""
    if volume.is_file():
        return {"": {"size": volume.stat().st_size, "sha256": _digest(volume)}}
    paths = sorted([volume, *volume.rglob("*")])
    first: dict[int, str] = {}
    return {str(path.relative_to(volume)): _described(path, str(path.relative_to(volume)), first) for path in paths}


def write_contents(path: Path, known: dict[str, Contents]) -> None:
    """Write what several backups hold, a line for each file; of one that holds the same as another, that one's name."""
    backups, first = [], dict[str, str]()
    for name, found in sorted(known.items()):
        same = first.setdefault(json.dumps(found), name)
        lines = ",\n".join(f"  {json.dumps(file)}: {json.dumps(facts)}" for file, facts in found.items())
        backups.append(f" {json.dumps(name)}: " + (f"{{\n{lines}\n }}" if same == name else json.dumps(same)))
    path.write_text("{\n" + ",\n".join(backups) + "\n}\n")


def read_contents(path: Path) -> dict[str, Contents]:
    """Read what `write_contents` has written."""
    known: dict[str, Contents | str] = json.loads(path.read_text())
    full = {name: found for name, found in known.items() if not isinstance(found, str)}
    return full | {name: full[found] for name, found in known.items() if isinstance(found, str)}


def _described(path: Path, name: str, first: dict[int, str]) -> dict[str, Any]:
    status = os.lstat(path)
    found: dict[str, Any] = {
        "mode": stat.filemode(status.st_mode),
        "owner": [status.st_uid, status.st_gid],
        "mtimeNs": status.st_mtime_ns,
        "attributes": {
            key: os.getxattr(path, key, follow_symlinks=False).hex()
            for key in sorted(os.listxattr(path, follow_symlinks=False))
            if not key.startswith("security.selinux")
        },
    }
    if stat.S_ISLNK(status.st_mode):
        found["target"] = str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        found |= {"size": status.st_size, "sha256": _digest(path), "sameAs": first.setdefault(status.st_ino, name)}
    return found


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
