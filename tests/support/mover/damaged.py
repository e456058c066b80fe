"""A real volume with unreadable blocks: ext4 on a loop device whose image is truncated after it was mounted."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
BLOCK = 4096
LARGE = 3 * MIB
READABLE = ["", "fine", "inner", "inner/fine", "inner/fine-again"]
"""Paths that can be read."""
UNREADABLE = ["attributes", "gone/", "large", "large-again", "link", "small"]
"""Paths that cannot be read, as in a report: attributes, a directory, a large file, a link, a small file."""


@contextmanager
def damaged_volume(place: Path) -> Iterator[Path]:
    """Make and mount the volume below ``place``. Blocks behind the middle of ``large`` return EIO. Needs root."""
    tree, image, mounted = place / "tree", place / "image", place / "mounted"
    (tree / "inner").mkdir(parents=True)
    mounted.mkdir()
    (tree / "fine").write_bytes(b"can be read")
    (tree / "inner" / "fine").write_bytes(b"can be read too")
    os.link(tree / "inner" / "fine", tree / "inner" / "fine-again")
    contents = {"of-large": LARGE, "of-small": 5 * BLOCK, "of-attribute": 3000}
    for name, size in contents.items():
        (place / name).write_bytes(random.Random(name).randbytes(size))
    with image.open("xb") as file:
        file.truncate(32 * MIB)
    # The order of the commands is the order of the blocks on the device.
    features = "^has_journal,^metadata_csum"
    _run("mkfs.ext4", "-q", "-b", str(BLOCK), "-m", "0", "-O", features, "-d", str(tree), str(image))
    commands = [
        f"write {place}/of-large large",
        "ln large large-again",
        "sif large links_count 2",
        f"write {place}/of-small small",
        "mkdir gone",
        f"write {place}/of-small gone/inside",
        f"symlink link {'x' * 200}",
        f"write {place}/of-small attributes",
        f"ea_set -f {place}/of-attribute attributes user.large",
    ]
    (place / "commands").write_text("\n".join(commands))
    _run("debugfs", "-w", "-f", str(place / "commands"), str(image))
    blocks = sorted(int(number) for number in _run("debugfs", "-R", "blocks large", str(image)).split())
    _run("mount", "-o", "loop,ro", str(image), str(mounted))
    try:
        os.truncate(image, blocks[len(blocks) // 2] * BLOCK)
        yield mounted
    finally:
        _run("umount", str(mounted))


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
