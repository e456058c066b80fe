"""Create and change volumes. Run as a child process, so that its memory does not count for the measured program.

python -m tests.bench.volumes image|tree|scattered PATH SIZE SEED
python -m tests.bench.volumes change PATH SHARE SEED
"""

from __future__ import annotations

import os
import sys
from typing import Final

from tests.bench.image import change_image, is_same_image, make_image, make_scattered
from tests.bench.tree import change_tree, make_tree

SCATTERED_DATA: Final = 1 << 30
"""Bytes of data in a scattered image."""


def main(arguments: list[str]) -> int:
    """Do one of these. Returns 1 if two images are not the same."""
    if arguments[0] == "same":
        return int(not is_same_image(arguments[1], arguments[2]))
    what, path, amount, seed = arguments[0], arguments[1], arguments[2], int(arguments[3])
    if what == "image":
        make_image(path, int(amount), seed)
    elif what == "tree":
        make_tree(path, int(amount), seed)
    elif what == "scattered":
        make_scattered(path, int(amount), min(SCATTERED_DATA, int(amount) // 8), seed)
    else:
        change = change_tree if os.path.isdir(path) else change_image
        change(path, float(amount), seed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
