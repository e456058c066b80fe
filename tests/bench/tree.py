"""The test tree: many files, with sizes like those of source trees. Also changes it."""

from __future__ import annotations

import math
import os
import random
from typing import Final

from tests.bench.text import Text

MEAN_BYTES: Final = 13_710
"""1.7 GB in 124,000 files."""
_SIGMA: Final = 1.6
"""Standard deviation of the logarithm of sizes.

With the mean above, the median is 3.8 KB and the 90th percentile 30 KB, and one file in 300 has more than 300 KB. That
resembles a source tree with documentation, pictures and test data."""
_LARGEST: Final = 8 << 20
_FILES_IN_DIRECTORY: Final = 14
_DIRECTORIES_IN_DIRECTORY: Final = 9
_NOISE: Final = 0.25
"""Share of files that do not compress: archives, pictures, keys."""


def make_tree(root: str, files: int, seed: int) -> None:
    """Create a tree with about ``files * MEAN_BYTES`` bytes."""
    dice, text = random.Random(seed), Text(seed)
    directories = [root]
    for _ in range(max(1, files // _FILES_IN_DIRECTORY)):
        parent = directories[(len(directories) - 1) // _DIRECTORIES_IN_DIRECTORY]
        directories.append(os.path.join(parent, f"{_name(dice)}-{len(directories)}"))
    for directory in directories:
        os.mkdir(directory)
    for number in range(files):
        directory = directories[number % len(directories)]
        _write(os.path.join(directory, f"{_name(dice)}-{number}.c"), dice, text)


def change_tree(root: str, share: float, seed: int) -> None:
    """Change a share of the files: of ten that change, six are rewritten, two are removed and two are added."""
    dice, text = random.Random(seed), Text(seed)
    paths = _files(root)
    for number, path in enumerate(dice.sample(paths, max(10, round(len(paths) * share)))):
        kind = number % 10
        if kind in (0, 1):
            os.unlink(path)
        elif kind in (2, 3):
            _write(f"{path}.new-{seed}", dice, text)
        else:
            _write(path, dice, text)


def _files(root: str) -> list[str]:
    return sorted(os.path.join(directory, name) for directory, _, names in os.walk(root) for name in names)


def _write(path: str, dice: random.Random, text: Text) -> None:
    size = min(int(dice.lognormvariate(_mu(), _SIGMA)), _LARGEST)
    with open(path, "wb") as file:
        file.write(text.noise(size) if dice.random() < _NOISE else text.piece(size))


def _mu() -> float:
    """Return the parameter that gives sizes the mean MEAN_BYTES."""
    return math.log(MEAN_BYTES) - _SIGMA**2 / 2


def _name(dice: random.Random) -> str:
    return "".join(dice.choices("abcdefghiklmnoprstuvw", k=dice.randint(3, 12)))
