"""The folder operator/ is only a place on the path: a package there would shadow the standard library's module."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from cinderblock import __version__

ROOT = Path(__file__).parents[2]


def test_operator_is_never_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_the_standard_library_wins_from_the_root_of_the_repository() -> None:
    program = "import operator, collections, json; print(operator.add(1, 2))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == "3\n", ended.stderr


def test_the_version_is_that_of_the_package() -> None:
    assert __version__ == version("cinderblock")
