"""The image that the Dockerfile builds, as stored in its archive."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.image import IMAGE_NAME, build

pytestmark = pytest.mark.e2e


class Archive:
    """An OCI archive of one image."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        [entry] = self._json("index.json")["manifests"]
        self.names = entry["annotations"]
        self._manifest = self._blob(entry["digest"])
        self.configuration = self._blob(self._manifest["config"]["digest"])["config"]

    def files(self) -> set[str]:
        """Return the names of all files in all layers."""
        names: set[str] = set()
        for layer in self._manifest["layers"]:
            with tarfile.open(fileobj=io.BytesIO(gzip.decompress(self._read(layer["digest"])))) as tar:
                names.update(tar.getnames())
        return names

    def _blob(self, digest: str) -> Any:
        return json.loads(self._read(digest))

    def _read(self, digest: str) -> bytes:
        file = self._tar.extractfile(f"blobs/{digest.replace(':', '/')}")
        assert file is not None
        return file.read()

    def _json(self, name: str) -> Any:
        file = self._tar.extractfile(name)
        assert file is not None
        return json.load(file)


@pytest.fixture(scope="module")
def archive() -> Iterator[Archive]:
    """Return the image of the working tree."""
    with tarfile.open(build()) as tar:
        yield Archive(tar)


def test_archive_contains_the_image_name_for_containerd(archive: Archive) -> None:
    assert archive.names["io.containerd.image.name"] == IMAGE_NAME


def test_program_does_not_run_as_root_by_default(archive: Archive) -> None:
    assert archive.configuration["User"] == "65532:65532"
    assert archive.configuration["Entrypoint"] == ["cinderblock"]


def test_nothing_of_this_machine_is_in_the_environment(archive: Archive) -> None:
    names = {entry.partition("=")[0] for entry in archive.configuration["Env"]}
    assert names == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONSAFEPATH", "PYTHONUNBUFFERED"}


def test_labels_describe_the_image(archive: Archive) -> None:
    labels = archive.configuration["Labels"]
    assert labels["org.opencontainers.image.title"] == "cinderblock"
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert labels["org.opencontainers.image.version"]


def test_build_tools_are_not_in_the_image(archive: Archive) -> None:
    files = archive.files()
    programs = {name.rpartition("/")[2] for name in files if "/bin/" in f"/{name}"}
    assert "cinderblock" in programs
    assert programs.isdisjoint({"cc", "gcc", "hatchling", "pip", "pip3", "uv"})
    assert not [name for name in files if name.startswith(("src/", "run/secrets", "root/.cache"))]


def test_modules_are_compiled(archive: Archive) -> None:
    files = archive.files()
    sources = {name for name in files if "/site-packages/cinderblock/" in name and name.endswith(".py")}
    assert sources
    compiled = {
        name.rpartition("/")[2].partition(".")[0] for name in files if "/cinderblock/" in name and ".pyc" in name
    }
    assert {name.rpartition("/")[2].removesuffix(".py") for name in sources} <= compiled
