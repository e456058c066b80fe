"""Image files, one for each volume and snapshot, each with a small file for the properties that CSI needs.

An image exists when its file has its name. Everything is written under another name first, so a call that died half
way leaves nothing that the next call could mistake for a result.
"""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.cluster.csi.refusals import RefusalError

SUFFIX = ".img"
RECORD_SUFFIX = ".json"
PARTIAL_SUFFIX = ".partial"


@dataclass(frozen=True)
class Image:
    """One volume or one snapshot."""

    name: str
    path: str
    size: int
    source: str
    """Source of the image; empty for a blank one."""
    created: int
    """Nanoseconds since the epoch: all that was written before this moment is in the snapshot."""
    freezes: bool = True
    """Whether file systems on it are frozen while it is copied."""


class ImageStore:
    """A directory of images. It does not lock: the server runs one call at a time."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        os.makedirs(directory, exist_ok=True)
        for entry in os.listdir(directory):
            if entry.endswith(PARTIAL_SUFFIX):
                os.unlink(os.path.join(directory, entry))

    def path(self, name: str) -> str:
        """Return where the image of that name is, or would be."""
        if "/" in name or name.startswith("."):
            raise RefusalError("INVALID_ARGUMENT", f"{name!r} cannot be the name of an image")
        return os.path.join(self._directory, name + SUFFIX)

    def find(self, name: str) -> Image | None:
        """Return the image of that name if there is one."""
        path = self.path(name)
        try:
            size = os.stat(path).st_size
            with open(path + RECORD_SUFFIX, encoding="utf-8") as file:
                record = json.load(file)
        except FileNotFoundError:
            return None
        return Image(name=name, path=path, size=size, **record)

    def get(self, name: str) -> Image:
        """Return the image of that name or refuse the call."""
        image = self.find(name)
        if image is None:
            raise RefusalError("NOT_FOUND", f"there is no {name}")
        return image

    def all(self) -> list[Image]:
        """Return all images in the order of their names."""
        names = sorted(entry.removesuffix(SUFFIX) for entry in os.listdir(self._directory) if entry.endswith(SUFFIX))
        return [image for image in map(self.find, names) if image is not None]

    def make_blank(self, name: str, size: int, *, freezes: bool = True) -> Image:
        """Make an image of zeros that takes no space."""
        path = self.path(name)
        with open(path + PARTIAL_SUFFIX, "wb") as file:
            file.truncate(size)
        return self._commit(name, source="", created=time.time_ns(), freezes=freezes)

    def make_copy(
        self,
        name: str,
        original: Image,
        copy: Callable[[str, str], None],
        *,
        source: str,
        size: int,
        freezes: bool = True,
    ) -> Image:
        """Copy an image from path to path, and let it grow to the size."""
        partial = self.path(name) + PARTIAL_SUFFIX
        created = time.time_ns()
        copy(original.path, partial)
        os.truncate(partial, size)
        return self._commit(name, source=source, created=created, freezes=freezes)

    def delete(self, name: str) -> None:
        """Remove the image of that name; none is fine."""
        path = self.path(name)
        for file in (path, path + RECORD_SUFFIX):
            if os.path.exists(file):
                os.unlink(file)

    def _commit(self, name: str, **record: object) -> Image:
        path = self.path(name)
        record_path = path + RECORD_SUFFIX
        with open(record_path + PARTIAL_SUFFIX, "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.rename(record_path + PARTIAL_SUFFIX, record_path)
        os.rename(path + PARTIAL_SUFFIX, path)
        return self.get(name)
