"""Links between pages are checked, with their headings."""

from __future__ import annotations

from pathlib import Path

from tests.lint.links import anchors, check_links

ROOT = Path(__file__).parents[3]


def test_every_link_and_every_named_page_exists() -> None:
    assert [str(finding) for finding in check_links(ROOT)] == []


def test_missing_files_headings_and_pages_are_found(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/page.md").write_text("# One `two`, three\n\n[a](#one-two-three) [b](#four) [c](gone.md)\n")
    (tmp_path / "README.md").write_text("```\n[x](y.md)\n```\n[d](docs/page.md#one-two-three) docs/old.md\n")
    found = [(finding.path, finding.line, finding.text) for finding in check_links(tmp_path)]
    assert found == [("docs/page.md", 3, "#four"), ("docs/page.md", 3, "gone.md"), ("README.md", 4, "docs/old.md")]


def test_anchors_are_those_of_github(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b`: c (d)\n## [Link](x.md) 0.1.0\n```\n# no heading\n```\n")
    assert anchors(page) == {"a-b-c-d", "link-010"}
