"""Create an image of one static program as an OCI archive for containerd, without a builder or a base image."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_MEDIA = "application/vnd.oci.image"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(archive: Path, name: str, program: Path, installed: str, directories: Sequence[str] = ()) -> None:
    """Write an image with the program as entry point, readable for every user, and with a /tmp that all users can write
    to.

    `name` is the full name of the image in containerd, and `installed` is the program's absolute path in the image. The
    archive is renamed into place, so it is complete or absent.
    """
    layer = _layer(program, installed, directories)
    configuration = _json(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Entrypoint": [installed], "Env": [f"PATH={Path(installed).parent}"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_MEDIA}.manifest.v1+json",
            "config": _descriptor(f"{_MEDIA}.config.v1+json", configuration),
            "layers": [_descriptor(f"{_MEDIA}.layer.v1.tar", layer)],
        }
    )
    # containerd takes the full name from its own annotation, and only the tag from OCI's.
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    entry = {**_descriptor(f"{_MEDIA}.manifest.v1+json", manifest), "annotations": names}
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
    }
    files |= {f"blobs/sha256/{_digest(blob).partition(':')[2]}": blob for blob in (configuration, manifest, layer)}
    partial = archive.with_name(archive.name + ".partial")
    with tarfile.open(partial, "w") as tar:
        for path, content in files.items():
            _add(tar, path, content, 0o644)
    partial.rename(archive)


def _layer(program: Path, installed: str, directories: Sequence[str]) -> bytes:
    buffer = io.BytesIO()
    parents = [str(parent).strip("/") for parent in reversed(Path(installed).parents)][1:]
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_directory(tar, "tmp", 0o1777)
        for directory in (*parents, *(path.strip("/") for path in directories)):
            _add_directory(tar, directory, 0o755)
        _add(tar, installed.strip("/"), program.read_bytes(), 0o755)
    return buffer.getvalue()


def _add_directory(tar: tarfile.TarFile, path: str, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.type = tarfile.DIRTYPE
    entry.mode = mode
    tar.addfile(entry)


def _add(tar: tarfile.TarFile, path: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(path)
    entry.size = len(content)
    entry.mode = mode
    tar.addfile(entry, io.BytesIO(content))


def _descriptor(media_type: str, content: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
