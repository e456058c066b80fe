"""Check Python code for docstrings that are not imperative, and for banners between sections."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.lint.prose import Finding

_SOURCES: Final = ("operator/**/*.py", "tests/**/*.py", "crds/*.py")
_PROPERTIES: Final = frozenset({"property", "cached_property"})
"""Docstrings of properties describe values, so they may begin with "Whether"."""
_QUESTION: Final = re.compile(r"(How|What|Where|Whether|Which|Who|Whom|Whose|Why)\b")
_BANNER: Final = re.compile(r"^\s*#[\s#]*([-=*~])\1")


def check_code(root: Path) -> Iterator[Finding]:
    """Return docstrings of functions that begin like a question, and comments that draw a line."""
    for path in sorted({path for pattern in _SOURCES for path in root.glob(pattern)}):
        name, text = path.relative_to(root).as_posix(), path.read_text("utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_property(node):
                opening = _QUESTION.match(ast.get_docstring(node) or "")
                if opening:
                    yield Finding(name, node.body[0].lineno, f"{opening[0]} ...", "begin with a verb: Return, Check")
        for number, line in enumerate(text.splitlines(), 1):
            if _BANNER.match(line):
                yield Finding(name, number, line.strip(), "write a plain comment, or split the module")


def _is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    names = (getattr(decorator, "attr", getattr(decorator, "id", "")) for decorator in node.decorator_list)
    return any(name in _PROPERTIES for name in names)
