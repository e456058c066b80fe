"""docs/reference/rules.md names rules and tests that exist, and leaves no rule out."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cinderblock import lifecycle
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup import import_checks
from cinderblock.lifecycle.restore import checks as restore_checks

TESTS = Path(__file__).parents[2]
PAGE = (TESTS.parent / "docs/reference/rules.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
LIFECYCLE = Path(lifecycle.__file__).parent


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """Names of all tests and of the modules that they are in."""
    paths = list(TESTS.rglob("test_*.py"))
    texts = (path.read_text() for path in paths)
    return {path.stem for path in paths} | {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row[0][:40])
def test_a_row_names_code_and_tests_that_exist(row: tuple[str, str, str], tests: set[str]) -> None:
    _, code, held_by = row
    for module, name in re.findall(r"`([\w.]+)\.(\w+)`", code):
        assert name in _functions(LIFECYCLE / f"{module.replace('.', '/')}.py")
    named = re.findall(r"`(\w+)`", held_by)
    assert named
    assert set(named) <= tests


def test_every_check_is_in_a_row() -> None:
    named = set(re.findall(r"`([\w.]+\.\w+)`", " ".join(code for _, code, _ in ROWS)))
    asked = (*backup_checks.BEFORE_COPY, *restore_checks.BEFORE_COPY, *import_checks.IMPORT_CHECKS)
    assert {f"{check.__module__.removeprefix(f'{lifecycle.__name__}.')}.{check.__name__}" for check in asked} <= named
