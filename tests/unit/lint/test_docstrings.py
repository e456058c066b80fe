"""The check of docstrings finds questions and banners, and nothing else."""

from __future__ import annotations

from pathlib import Path

from tests.lint.docstrings import check_code


def found_in(folder: Path, text: str) -> list[str]:
    source = folder / "tests" / "test_x.py"
    source.parent.mkdir(exist_ok=True)
    source.write_text(text)
    return [str(finding) for finding in check_code(folder)]


def test_question_as_docstring_is_found_with_its_line(tmp_path: Path) -> None:
    text = 'def f():\n    pass\n\n\nasync def g():\n    """Whether it works."""\n'
    assert found_in(tmp_path, text) == ["tests/test_x.py:6: 'Whether ...': begin with a verb: Return, Check"]


def test_properties_classes_and_longer_words_pass(tmp_path: Path) -> None:
    text = (
        'class C:\n    """What it holds."""\n\n    @property\n    def p(self):\n        """Whether it works."""\n\n'
        'def f():\n    """Whittle it down."""\n'
    )
    assert found_in(tmp_path, text) == []


def test_banners_are_found(tmp_path: Path) -> None:
    text = "# -- users\nx = 1  # -- not at its beginning\n#######\n# ====\n#: -1 is no banner\n"
    lines = [finding.split(":")[1] for finding in found_in(tmp_path, text)]
    assert lines == ["1", "4"]
