"""docs/reference/rules.md lists every check, and refers to existing code and tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from cinderblock import lifecycle
from cinderblock.lifecycle.backup import checks as backup_checks
from cinderblock.lifecycle.backup import import_checks
from cinderblock.lifecycle.restore import checks as restore_checks
from cinderblock.lifecycle.verification import checks as verification_checks

TESTS = Path(__file__).parents[2]
PAGE = (TESTS.parent / "docs/reference/rules.md").read_text()
ROWS = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
LIFECYCLE = Path(lifecycle.__file__).parent


def _functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """Return the names of all tests and test modules."""
    paths = list(TESTS.rglob("test_*.py"))
    texts = (path.read_text() for path in paths)
    return {path.stem for path in paths} | {name for text in texts for name in re.findall(r"def (test_\w+)\(", text)}


@pytest.mark.parametrize("row", ROWS[1:], ids=lambda row: row[0][:40])
def test_row_names_existing_code_and_tests(row: tuple[str, str, str], tests: set[str]) -> None:
    _, code, tested_by = row
    for module, name in re.findall(r"`([\w.]+)\.(\w+)`", code):
        assert name in _functions(LIFECYCLE / f"{module.replace('.', '/')}.py")
    names = re.findall(r"`(\w+)`", tested_by)
    assert names
    assert set(names) <= tests


def test_every_check_has_a_row() -> None:
    listed = set(re.findall(r"`([\w.]+\.\w+)`", " ".join(code for _, code, _ in ROWS)))
    checks = (
        *backup_checks.BEFORE_COPY,
        *restore_checks.BEFORE_COPY,
        *import_checks.IMPORT_CHECKS,
        *verification_checks.BEFORE_START,
    )
    assert {f"{check.__module__.removeprefix(f'{lifecycle.__name__}.')}.{check.__name__}" for check in checks} <= listed
