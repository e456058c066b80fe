"""The small images of the cluster. Each contains one static program, and is kept as an archive next to it."""

from pathlib import Path

from tests.cluster import caching, containers, oci, toolchain
from tests.cluster.settings import Settings

S3_IMAGE = "localhost/versitygw:test"
"""An S3 server: the program is the entry point, and it runs as any user."""


def ensure_loaded(settings: Settings) -> None:
    """Give containerd the images that it does not have yet."""
    present = containers.image_names(settings)
    for name, archive in archives().items():
        if name not in present:
            containers.load(settings, archive)


def archives() -> dict[str, Path]:
    """Return the archive of each image, making it if need be."""
    return {
        containers.PAUSE_IMAGE: _archive(containers.PAUSE_IMAGE, "pause", "/pause"),
        S3_IMAGE: _archive(S3_IMAGE, "versitygw", "/usr/local/bin/versitygw"),
    }


def _archive(name: str, program: str, installed: str) -> Path:
    binary = toolchain.tool(program)
    archive = binary.parent.parent / "image.tar"
    with caching.locked(archive.with_suffix(".lock")):
        if not archive.exists():
            oci.write_image(archive, name, binary, installed)
    return archive
