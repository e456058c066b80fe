"""Check that text is in plain English: no words of the old dialect, no sentence of more than 35 words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.lint.passages import ROOMS, Passage, Room
from tests.lint.words import ALLOWED, OPENINGS, WORDS

LONGEST_SENTENCE: Final = 35
"""Words. A sentence of more than 25 should be rare."""

_PATTERNS: Final = [(re.compile(rf"(?<![\w-])(?:{word.pattern})(?![\w-])", re.IGNORECASE), word) for word in WORDS]
_ANY: Final = re.compile("|".join(word.pattern for word in WORDS), re.IGNORECASE)
"""Matches every passage in which a word may be: most hold none, and one search is faster than forty."""
_OPENINGS: Final = [(re.compile(rf"(?:{word.pattern})\b"), word) for word in OPENINGS]
_ABBREVIATION: Final = re.compile(r"\b(e\.g|i\.e|etc|vs|No)\.$")
_SENTENCE_END: Final = re.compile(r'(?<=[.!?])["\')]*\s+(?=[A-Z"\'(\d!]|[a-z][a-z ]{0,24}: )')
"""A sentence begins with a capital letter, or with a word of a glossary and a colon."""


class Finding(NamedTuple):
    """One thing to write differently."""

    path: str
    line: int
    text: str
    instead: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: {self.instead}"


def sentences(text: str) -> Iterator[str]:
    """Split a passage after full stops, question marks and exclamation marks."""
    start = 0
    for end in _SENTENCE_END.finditer(text):
        if _ABBREVIATION.search(text[start : end.start()]):
            continue
        yield text[start : end.start()]
        start = end.end()
    yield text[start:]


def words_of(sentence: str) -> int:
    """Count the words of a sentence; punctuation that stands alone is none."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def check(path: str, passage: Passage) -> Iterator[Finding]:
    """Return what should be written differently in one passage."""
    allowed = ALLOWED.get(path, frozenset())
    for pattern, word in _PATTERNS if _ANY.search(passage.text) else ():
        for found in pattern.finditer(passage.text):
            if found[0].lower() not in allowed:
                yield Finding(path, passage.line, found[0], f"write: {word.instead}")
    for sentence in sentences(passage.text):
        length = words_of(sentence)
        if passage.is_prose and length > LONGEST_SENTENCE:
            beginning = " ".join(sentence.split()[:6])
            yield Finding(path, passage.line, f"{beginning} ...", f"split this sentence of {length} words")
        for pattern, word in _OPENINGS:
            found = pattern.match(sentence)
            if found and sentence.rstrip().endswith("."):
                yield Finding(path, passage.line, f"{found[0]} ...", word.instead)


def check_room(root: Path, room: Room) -> list[Finding]:
    """Return all findings of a room, by file and line."""
    return sorted(
        finding
        for path in room.files(root)
        for passage in room.read(path.read_text("utf-8"))
        for finding in check(path.relative_to(root).as_posix(), passage)
    )


def check_all(root: Path) -> list[Finding]:
    """Return the findings of all rooms."""
    return [finding for room in ROOMS for finding in check_room(root, room)]
