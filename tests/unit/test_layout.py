"""The folder operator/ is only a place on the path: a package there would shadow the standard library's module."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from cinderblock import __version__

ROOT = Path(__file__).parents[2]
MAX_MODULES = 17
"""Modules of a room: more of them hide what is there."""
MAX_WORDS = 12
"""Words of a test's name; its docstring holds the rest."""


def test_operator_is_never_a_package() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_standard_library_wins_from_the_root_of_the_repository() -> None:
    program = "import operator, collections, json; print(operator.add(1, 2))"
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.stdout == "3\n", ended.stderr


def test_version_is_that_of_the_package() -> None:
    assert __version__ == version("cinderblock")


def test_no_room_holds_too_many_modules() -> None:
    rooms = {path.parent for path in (ROOT / "operator" / "cinderblock").rglob("*.py")}
    crowded = {str(room): count for room in rooms if (count := len(list(room.glob("*.py")))) > MAX_MODULES}
    assert not crowded


def test_names_of_tests_are_short() -> None:
    names = [
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert not [name for name in names if name.count("_") > MAX_WORDS]
