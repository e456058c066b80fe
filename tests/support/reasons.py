"""Every stable reason that the program can give, from its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from cinderblock import errors

PACKAGE = Path(errors.__file__).parent
ROOMS = ("lifecycle", "controller", "kube", "store", "format", "volume", "mover", "repository", "archiver", "restorer")
"""Rooms whose reasons get into conditions and Events; the gateway and the command line have readers of their own."""
FIRST_ARGUMENT = frozenset({"Fail", "Wait", "_remove_finalizer"})
SECOND_ARGUMENT = frozenset({"RecordEvent"})
FOURTH_ARGUMENT = frozenset({"reconciling", "ready", "stalled"})
"""These make conditions."""
CONSTANTS = frozenset(
    {
        *(
            "ABANDONED",
            "CANCELLING",
            "CHILDREN_REMAIN",
            "KEPT",
            "NOTICED",
            "QUEUED",
            "STATUS_LOST",
            "RUNNING",
        ),
        *("NOT_AVAILABLE", "STALLED", "STILL_ATTACHED", "STOPPING", "_FORBIDDEN_REASONS"),
    }
)
WORD = re.compile(r"[A-Z][A-Za-z0-9]+")
TYPES = frozenset({"Normal", "Warning"})


IN_LOGS_ONLY = frozenset({"NotLeading"})
"""Who does not lead writes neither a status nor an Event."""
COMMAND_LINE_ONLY = frozenset({"PathNotFound"})
"""Only the command line asks for paths of a backup."""
ANSWERED = frozenset({"AlreadyExists"})
"""Whoever creates something deals with its being there: this error never gets as far as a status or a log."""


def reasons() -> set[str]:
    """Literals in the places where reasons stand, constants of such a value, and the classes of errors."""
    return (_of_errors() | {word for room in ROOMS for word in _of_room(room)}) - COMMAND_LINE_ONLY


def of_rooms(rooms: tuple[str, ...]) -> set[str]:
    """Reasons that only these rooms give, and the classes of errors."""
    others = {word for room in ROOMS if room not in rooms for word in _of_room(room)}
    return (_of_errors() | {word for room in rooms for word in _of_room(room)}) - others - COMMAND_LINE_ONLY


def _of_errors() -> set[str]:
    told = {item("").reason for item in vars(errors).values() if isinstance(item, type) and _is_told(item)}
    return told - ANSWERED


def _of_room(room: str) -> set[str]:
    return {word for path in (PACKAGE / room).rglob("*.py") for word in _literals(path)}


def _is_told(kind: type) -> bool:
    bases = (errors.CinderblockError, errors.PermanentError, errors.TransientError)
    return issubclass(kind, errors.CinderblockError) and kind not in bases


def _literals(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            yield from _words(_of_call(node))
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_constant_of_reasons(node):
            yield from _words(ast.walk(node))


def _of_call(node: ast.Call) -> Iterator[ast.AST]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in FIRST_ARGUMENT and node.args:
        yield from ast.walk(node.args[0])
    if name in SECOND_ARGUMENT and len(node.args) > 1:
        yield from ast.walk(node.args[1])
    if name in FOURTH_ARGUMENT and len(node.args) > 3:
        yield node.args[3]
    for keyword in node.keywords:
        if keyword.arg == "reason":
            yield from ast.walk(keyword.value)


def _is_constant_of_reasons(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id in CONSTANTS for target in targets)


def _words(nodes: Iterator[ast.AST]) -> Iterator[str]:
    values = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return (value for value in values if WORD.fullmatch(value) and value not in TYPES)
