"""The check of prose finds what it should find, and nothing in code, quotes and tables."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lint import prose
from tests.lint.passages import (
    CODE,
    ROOMS,
    Passage,
    Room,
    of_comments,
    of_descriptions,
    of_json,
    of_markdown,
    of_notes,
    of_python,
)
from tests.lint.prose import check, check_room, sentences, words_of
from tests.lint.words import OPENINGS, WORDS

ROOT = Path(__file__).parents[3]
LONG = "word " * 36 + "end."


def found_in(text: str) -> list[str]:
    return [finding.text for finding in check("page.md", Passage(1, text))]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("The watch begins anew.", "anew"),
        ("It waits for ever.", "for ever"),
        ("The image cannot be had.", "be had"),
        ("All but for one.", "but for"),
        ("A status is told of it.", "is told"),
        ("Everything else waits, and so does the queue.", "so does the"),
        ("The operator lets go of it.", "lets go"),
        ("It looks at the object.", "looks at"),
        ("Do it by hand.", "by hand"),
        ("It is no hook.", "is no hook"),
        ("Compared with the figures", "figures"),
        ("Who reads it knows it.", "Who ..."),
        ("What is stored stays.", "What ..."),
        ("Of six aims one is reached.", "Of ..."),
    ],
)
def test_words_of_the_old_dialect_are_found(text: str, word: str) -> None:
    assert word in found_in(text)


@pytest.mark.parametrize(
    "text",
    [
        "There is no hook.",
        "Who may read it?",
        "What to do",
        "The line is long, and the worldwide total is known.",
        "He manages forever; manual work is rare.",
        f"Call {CODE} again.",
    ],
)
def test_plain_sentences_pass(text: str) -> None:
    assert found_in(text) == []


def test_finding_names_file_line_word_and_replacement() -> None:
    [finding] = check("docs/page.md", Passage(7, "It begins anew."))
    assert str(finding) == "docs/page.md:7: 'anew': write: again, or a verb with re-: restart, reopen"


def test_only_prose_has_a_limit_of_words() -> None:
    assert "split this sentence of 37 words" in next(check("a.md", Passage(1, LONG))).instead
    assert list(check("a.md", Passage(1, LONG, is_prose=False))) == []


def test_true_uses_are_allowed_by_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prose, "ALLOWED", {"a.md": frozenset({"anew"})})
    passage = Passage(1, "It begins anew.")
    assert list(check("a.md", passage)) == []
    assert len(list(check("b.md", passage))) == 1


def test_sentences_end_at_stops_and_not_at_abbreviations() -> None:
    assert list(sentences("One, e.g. Two. Three? Four")) == ["One, e.g. Two.", "Three?", "Four"]
    assert words_of("a - b (c) |") == 3


def test_markdown_without_code_and_quotes() -> None:
    page = (
        "# Title\n\nOne `code` and\n[a link](x.md).\n\n> quoted anew\n\n"
        "```sh\nanew\n```\n\n- item\n\n| a | b `c` |\n|---|---|\n"
    )
    assert [(passage.line, passage.text, passage.is_prose) for passage in of_markdown(page)] == [
        (1, "Title", False),
        (3, f"One {CODE} and a link.", True),
        (12, "item", True),
        (14, "a", False),
        (14, f"b {CODE}", False),
        *[(15, "---", False)] * 2,
    ]


def test_comments_without_commented_out_yaml() -> None:
    text = (
        "# First\n# second.\nkey: 1\n# size: 20Gi\n# labels: {a: b}\n"
        "{{- /* Third\n   fourth. */ -}}\n#   kubectl get pods\n"
    )
    assert [passage.text for passage in of_comments(text)] == ["First second.", "Third fourth."]


def test_descriptions_of_yaml_in_every_style() -> None:
    text = "a:\n  description: One\n    two.\n  type: x\n  summary: >-\n    Three {{ four }}\n    five.\nb: 1\n"
    assert [(passage.line, passage.text) for passage in of_descriptions(text)] == [
        (2, "One two."),
        (5, f"Three {CODE} five."),
    ]


def test_descriptions_of_json() -> None:
    assert [passage.text for passage in of_json('{\n "description": "One \\" two"\n}')] == ['One \\" two']


def test_notes_without_commands() -> None:
    text = "Next, wait:\n\n  kubectl get pods\n\n  !! Mind {{ .Values.x }}.\n"
    assert [passage.text for passage in of_notes(text)] == ["Next, wait:", f"Mind {CODE}."]


def test_docstrings_messages_help_and_comments_of_python() -> None:
    source = '''
"""Module."""
_DESCRIPTION = "Help of all."
def f():
    """Function."""
    raise NotFound(f"There is no {x}: create it")
check = Fail("Reason", "It failed.")
parser.add_argument("--x", help="an option")
print("never read here")  # noqa: T201
x = 1  # One
# more comment.

# Another.
'''
    assert sorted(passage.text for passage in of_python(source)) == sorted(
        [
            *("Module.", "Function.", "Help of all.", f"There is no {CODE}: create it", "It failed.", "an option"),
            *("One more comment.", "Another."),
        ]
    )


def test_sections_of_docstrings_item_by_item_and_without_examples() -> None:
    source = '''
def f():
    """Do it.

    As here:

        x = 1  # anew

    Args:
        one: the first
            of all.
        two: the second.
    Returns nothing.
    """
'''
    assert [passage.text for passage in of_python(source)] == [
        "Do it.",
        "As here:",
        "one: the first of all.",
        "two: the second. Returns nothing.",
    ]


def test_every_room_of_the_package_is_in_the_list() -> None:
    rooms = {path.parent.name for path in (ROOT / "operator/cinderblock").glob("*/__init__.py")}
    assert {f"operator/{room}" for room in rooms} <= {room.name for room in ROOMS}


def test_room_leaves_out_files(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Anew.")
    (tmp_path / "b.md").write_text("Anew.")
    room = Room("pages", ("*.md",), of_markdown, left_out=("b.md",))
    assert [finding.path for finding in check_room(tmp_path, room)] == ["a.md"]


def test_every_word_says_what_to_write() -> None:
    assert all(word.instead for word in (*WORDS, *OPENINGS))
