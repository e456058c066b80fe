"""Extract the text that people read from files."""

from __future__ import annotations

import ast
import inspect
import io
import re
import tokenize
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

CODE: Final = "CODE"
"""Stands for text in backticks, so that a sentence keeps its length."""

_FENCE: Final = re.compile(r"^\s*(```|~~~)")
_TAG: Final = re.compile(r"<[^<>]+>")
_LINK: Final = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
_ITEM: Final = re.compile(r"^\s*(?:[-*+]|\d+\.)\s+(.*)$")
_TEMPLATE: Final = re.compile(r"\{\{.*?\}\}")
_DESCRIPTION: Final = re.compile(r"^(\s*)(?:- )?(?:description|summary): (.*)$")


class Passage(NamedTuple):
    """A paragraph, a cell of a table, a comment or a message.

    Attributes:
        line: its first line in the file, from 1.
        text: the text in one line, without markup.
        is_prose: whether its sentences have a limit; those in tables and headings have none.
    """

    line: int
    text: str
    is_prose: bool = True


def plain(text: str) -> str:
    """Remove code, links and emphasis from a line of Markdown or a docstring."""
    text = re.sub(r"``[^`]+``|`[^`]+`", CODE, text)
    text = _LINK.sub(r"\1", text)
    return _TAG.sub("", re.sub(r"\*\*|(?<!\w)[*_]|[*_](?!\w)", "", text))


def _joined(lines: Iterable[tuple[int, str]], is_prose: bool = True) -> Iterator[Passage]:
    """Yield one passage from consecutive lines, or none if they are empty."""
    found = list(lines)
    text = plain(" ".join(line.strip() for _, line in found)).strip()
    if text:
        yield Passage(found[0][0], text, is_prose)


def of_markdown(text: str) -> Iterator[Passage]:
    """Yield paragraphs, list items, headings and cells, but no code and no quoted blocks."""
    paragraph: list[tuple[int, str]] = []
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        item = _ITEM.match(line)
        ends = not line.strip() or line.lstrip().startswith(("|", "#", ">")) or item is not None
        if _FENCE.match(line) or in_code or ends:
            yield from _joined(paragraph)
            paragraph = []
        if _FENCE.match(line):
            in_code = not in_code
        elif in_code or not line.strip() or line.lstrip().startswith(">"):
            continue
        elif line.lstrip().startswith("|"):
            for cell in plain(line.strip().strip("|")).split("|"):
                yield from _joined([(number, cell)], is_prose=False)
        elif line.startswith("#"):
            yield from _joined([(number, line.lstrip("#"))], is_prose=False)
        else:
            paragraph.append((number, item[1] if item else line))
    yield from _joined(paragraph)


def of_comments(text: str) -> Iterator[Passage]:
    """Yield comments of YAML, of the Makefile and of Helm templates. Each run of comment lines is one passage."""
    block: list[tuple[int, str]] = []
    in_template = False
    for number, line in enumerate(text.splitlines(), 1):
        bare = line.strip()
        opens = bare.startswith(("{{- /*", "{{/*"))
        if opens or in_template:
            in_template = "*/" not in bare
            block.append((number, re.sub(r"\{\{-? ?/\*|\*/ ?-?\}\}", "", bare)))
            if not in_template:
                yield from _joined(block)
                block = []
            continue
        comment = re.match(r"#+(?!!)\s?(.*)$", bare)
        if comment and comment[1].strip() and not comment[1].startswith("  ") and not _is_yaml(comment[1]):
            block.append((number, comment[1]))
        else:
            yield from _joined(block)
            block = []
    yield from _joined(block)


def _is_yaml(text: str) -> bool:
    """Return whether a comment is a line that was commented out."""
    return re.match(r"[A-Za-z]\w*: ([\[{].*|\S+( *\(.*)?)$", text) is not None


def of_descriptions(text: str) -> Iterator[Passage]:
    """Yield values of ``description`` and ``summary`` in YAML, in any style, except Kubernetes' own below ``mover``."""
    lines = text.splitlines()
    mover_indent: int | None = None
    for index, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        if line.strip() == "mover:":
            mover_indent = indent
        elif mover_indent is not None and line.strip() and indent <= mover_indent:
            mover_indent = None
        found = _DESCRIPTION.match(line)
        if not found or (mover_indent is not None and indent > mover_indent + 6):
            continue
        block = [(index + 1, found[2].strip(" \"'"))]
        for number in range(index + 1, len(lines)):
            following = lines[number]
            if not following.strip() or len(following) - len(following.lstrip()) <= len(found[1]):
                break
            block.append((number + 1, following))
        yield from _joined((number, _TEMPLATE.sub(CODE, part).removeprefix(">-")) for number, part in block)


def of_template(text: str) -> Iterator[Passage]:
    """Yield comments and descriptions of a Helm template."""
    yield from of_comments(text)
    yield from of_descriptions(text)


def of_notes(text: str) -> Iterator[Passage]:
    """Yield paragraphs of NOTES.txt, without indented commands."""
    block: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        bare = _TEMPLATE.sub(CODE, line).strip().removeprefix("!!")
        if bare and bare != CODE and not line.startswith("  k") and not line.startswith("     k"):
            block.append((number, bare))
        else:
            yield from _joined(block)
            block = []
    yield from _joined(block)


def of_json(text: str) -> Iterator[Passage]:
    """Yield values of ``description`` in JSON, each in one line."""
    for number, line in enumerate(text.splitlines(), 1):
        for found in re.findall(r'"description": "((?:[^"\\]|\\.)*)"', line):
            yield from _joined([(number, found)])


_MESSAGES: Final = frozenset({"Fail", "Wait", "RecordEvent", "ready", "stalled", "reconciling"})
_DIRECTIVE: Final = re.compile(r"#!|#\s*(?:noqa|type:|fmt:|pragma)")
_HELP: Final = frozenset({"help", "description", "epilog"})


def of_python(text: str) -> Iterator[Passage]:
    """Yield docstrings, messages of errors and conditions, help of commands, and comments."""
    yield from _comments(text)
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for paragraph in _paragraphs(node.value.value):
                yield from _joined([(node.lineno, paragraph)])
        elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield from _texts(node.exc.args[:1])
        elif isinstance(node, ast.Call):
            if _name(node.func) in _MESSAGES:
                yield from _texts(node.args)
            yield from _texts(keyword.value for keyword in node.keywords if keyword.arg in _HELP)
        elif isinstance(node, ast.Assign | ast.AnnAssign) and _is_help(node):
            yield from _texts([node.value] if node.value else [])


def _comments(text: str) -> Iterator[Passage]:
    """Yield the comments of Python code, except directives for tools. Lines of comments below each other are one."""
    block: list[tuple[int, str]] = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
            continue
        line, stands_alone = token.start[0], not token.line[: token.start[1]].strip()
        if block and not (stands_alone and block[-1][0] == line - 1):
            yield from _joined(block)
            block = []
        block.append((line, token.string.lstrip("# ")))
    yield from _joined(block)


def _paragraphs(text: str) -> Iterator[str]:
    """Split a docstring or a help text into paragraphs and items of its sections; examples and tables are left out."""
    lines: list[str] = []
    is_in_item = is_in_examples = False
    for line in [*inspect.cleandoc(text).splitlines(), ""]:
        section = re.match(r"(Args|Attributes|Returns|Raises|Yields):$", line)
        item = re.match(r" {4}([\w*, ]+: .*)$", line) or re.match(r"(?:[-*]|\d+\.) (.*)$", line)
        is_in_item = item is not None or (is_in_item and bool(line.strip()))
        is_table = re.search(r"\S {2,}\S", line) is not None
        is_in_examples = line == "examples:" or (is_in_examples and bool(line.strip()))
        is_example = is_table or is_in_examples or (line.startswith("  ") and not is_in_item)
        if (section or item or is_example or not line.strip()) and lines:
            yield " ".join(lines)
            lines = []
        if line.strip() and not section and not is_example:
            lines.append(item[1] if item else line.strip())


def _is_help(node: ast.Assign | ast.AnnAssign) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return any(isinstance(target, ast.Name) and target.id.strip("_") in ("DESCRIPTION", "EPILOG") for target in targets)


def _name(function: ast.expr) -> str:
    return (
        function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    )


def _texts(nodes: Iterable[ast.expr]) -> Iterator[Passage]:
    """Yield the strings among expressions that contain more than one word."""
    for node in nodes:
        text = None
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        elif isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else CODE for part in node.values)
        if text is not None and " " in text:
            for paragraph in _paragraphs(text):
                yield from _joined([(node.lineno, paragraph)])


class Room(NamedTuple):
    """Files whose text is extracted in the same way.

    Attributes:
        name: for the report.
        patterns: which files, from the root of the repository.
        read: finds the passages.
        left_out: files that are not checked.
    """

    name: str
    patterns: tuple[str, ...]
    read: Callable[[str], Iterator[Passage]]
    left_out: tuple[str, ...] = ()

    def files(self, root: Path) -> Iterator[Path]:
        """Return the files of the room, in order."""
        found = {path for pattern in self.patterns for path in root.glob(pattern) if path.is_file()}
        yield from sorted(path for path in found if path.relative_to(root).as_posix() not in self.left_out)


ROOMS: Final = (
    Room("pages", ("*.md", "docs/**/*.md", "examples/**/*.md", "tests/*.md"), of_markdown),
    Room("examples", ("examples/**/*.yaml",), of_comments),
    Room("chart values", ("charts/*/values.yaml", "charts/*/Chart.yaml"), of_template),
    Room("chart schema", ("charts/*/values.schema.json",), of_json),
    Room("chart templates", ("charts/*/templates/**/*.yaml", "charts/*/templates/**/*.tpl"), of_template),
    Room("chart notes", ("charts/*/templates/NOTES.txt",), of_notes),
    Room("makefile", ("Makefile",), of_comments),
    Room("definitions", ("crds/*.yaml",), of_descriptions),
    *(
        Room(f"operator/{room}", (f"operator/cinderblock/{room}/**/*.py",), of_python)
        for room in (
            "api", "lifecycle", "format", "store", "volume", "kube", "observability", "repository", "archiver",
            "restorer", "mover", "controller", "gateway", "broker", "serving", "cli",
        )
    ),
    Room("operator", ("operator/cinderblock/*.py",), of_python),
    Room("tests", ("tests/**/*.py",), of_python, left_out=("tests/lint/words.py",)),
)  # fmt: skip
