"""The commands of docs/guide/disaster.md, section by section."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

RUNBOOK: Final = Path(__file__).parents[3] / "docs" / "guide" / "disaster.md"
_HEADING: Final = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)
_BLOCK: Final = re.compile(r"^```(sh|yaml)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(heading: str) -> str:
    """Return the text below a heading, up to the next one."""
    parts = _HEADING.split(RUNBOOK.read_text("utf-8"))
    found = dict(zip(parts[1::2], parts[2::2], strict=True))
    return found[heading]


def headings() -> list[str]:
    """Return all headings."""
    return _HEADING.findall(RUNBOOK.read_text("utf-8"))


def blocks(heading: str, language: str = "sh") -> list[str]:
    """Return the code blocks of a section in one language."""
    return [text for found, text in _BLOCK.findall(section(heading)) if found == language]


def command_lines() -> list[str]:
    """Return all commands of the runbook, with their continuation lines joined."""
    scripts = [script for heading in headings() for script in blocks(heading)]
    joined = "".join(scripts).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.strip()]
