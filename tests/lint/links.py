"""Check that every relative link leads to an existing file and heading, and that named pages and modules exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from tests.lint.prose import Finding

_PAGES: Final = ("*.md", "docs/**/*.md", "examples/**/*.md", "tests/*.md")
_SOURCES: Final = (
    "operator/**/*.py", "tests/**/*.py", "charts/**/*.yaml", "charts/**/*.txt", "charts/**/*.tpl", "examples/**/*.yaml",
    "crds/*.yaml", "Makefile", "Dockerfile",
)  # fmt: skip
_GUIDES_TO_CODE: Final = ("docs/architecture.md", "CONTRIBUTING.md")
"""Pages that name modules by their path, without a prefix below operator/cinderblock."""
_OWN_TESTS: Final = "tests/unit/lint"
"""These name pages that must not exist."""
_LINK: Final = re.compile(r"(?<!`)\[[^\]]+\]\(([^)\s]+)\)")
_MENTION: Final = re.compile(r"\bdocs/[\w./-]+\.md\b")
_MODULE: Final = re.compile(r"`([\w./-]+\.(?:py|toml|yaml|json))`")
_HEADING: Final = re.compile(r"^#+ (.+)$", re.MULTILINE)


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors that GitHub makes from the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return frozenset(_anchor(heading) for heading in _HEADING.findall(text))


def _anchor(heading: str) -> str:
    bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", bare.lower()).replace(" ", "-")


def check_links(root: Path) -> Iterator[Finding]:
    """Return links that lead nowhere, and names of pages and modules that do not exist."""
    for page in _files(root, _PAGES):
        text = _without_code(page.read_text("utf-8"))
        for link in _LINK.finditer(text):
            problem = _problem(page, link[1])
            if problem:
                number = text.count("\n", 0, link.start(1)) + 1
                yield Finding(page.relative_to(root).as_posix(), number, link[1], problem)
    for source in (*_files(root, _PAGES), *_files(root, _SOURCES)):
        if source.parent == root / _OWN_TESTS:
            continue
        for number, line in enumerate(source.read_text("utf-8").splitlines(), 1):
            for name in _MENTION.findall(line):
                if not (root / name).is_file():
                    yield Finding(source.relative_to(root).as_posix(), number, name, "there is no such page")

    yield from _check_modules(root)


def _check_modules(root: Path) -> Iterator[Finding]:
    """Return paths of modules that do not exist."""
    places = (root / "operator/cinderblock", root, root / "charts/cinderblock")
    for name in _GUIDES_TO_CODE:
        page = root / name
        for number, line in enumerate(page.read_text("utf-8").splitlines() if page.exists() else (), 1):
            for path in _MODULE.findall(line):
                if not any((place / path).is_file() for place in places):
                    yield Finding(name, number, path, "there is no such file")


def _problem(page: Path, target: str) -> str | None:
    """Return why a link leads nowhere, or None. The text of a link may go over two lines."""
    if re.match(r"[a-z]+:", target):
        return None
    path, _, anchor = target.partition("#")
    file = (page.parent / path).resolve() if path else page
    if not file.exists():
        return "there is no such file"
    if anchor and file.suffix == ".md" and anchor not in anchors(file):
        return "there is no such heading"
    return None


def _without_code(text: str) -> str:
    """Blank out fenced code, so that lines keep their numbers."""
    return re.sub(r"^ *```.*?^ *```", lambda code: "\n" * code[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)


def _files(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return sorted({path for pattern in patterns for path in root.glob(pattern) if path.is_file()})
