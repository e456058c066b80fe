"""Manifests, fragments and patches in the pages fit the CustomResourceDefinitions, so that readers can copy them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any, NamedTuple

import pytest
import yaml
from jsonschema import Draft202012Validator

from tests.support.strict_schemas import SCHEMAS

ROOT = Path(__file__).parents[3]
PAGES = [ROOT / "README.md", ROOT / "docs/concepts.md", *sorted((ROOT / "docs/guide").glob("*.md"))]
VALUES = {
    "S3_ENDPOINT": "https://s3.example.com",
    "S3_BUCKET": "backups",
    "id": "1f0c7a3e-6f3a-4c1e-9b7d-0d6a5b3c2e11",
    "ID": "1f0c7a3e-6f3a-4c1e-9b7d-0d6a5b3c2e11",
    "NAME": "files-x7k2p",
}
"""Values for the variables of commands, and for the words that readers replace."""


class Snippet(NamedTuple):
    """A part of an object.

    Attributes:
        page: the page that contains it.
        kinds: lower-case names of the kinds that it may belong to.
        content: the object, or only its spec.
        is_whole: whether no field may be missing.
    """

    page: str
    kinds: frozenset[str]
    content: dict[str, Any]
    is_whole: bool


def _blocks(text: str, language: str) -> list[str]:
    return [dedent(block) for block in re.findall(rf"^ *```{language}\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)]


def _filled(text: str) -> str:
    """Return a text with values for its variables. Fails for a variable without a value."""
    text = re.sub(r"\$(\w+)", lambda found: VALUES[found[1]], text)
    return re.sub(r"\b(?:ID|NAME)\b", lambda found: VALUES[found[0]], text)


def _snippets(page: Path) -> Iterator[Snippet]:
    text = page.read_text()
    commands = "\n".join(_blocks(text, "sh"))
    documents = [*_blocks(text, "yaml"), *re.findall(r"<<EOF\n(.*?)^ *EOF$", commands, re.MULTILINE | re.DOTALL)]
    for document in documents:
        for item in yaml.safe_load_all(_filled(document)):
            if str(item.get("apiVersion", "")).startswith("cinderblock.io/"):
                yield Snippet(page.name, frozenset({item["kind"].lower()}), item, is_whole=True)
            elif item.keys() == {"spec"}:
                yield Snippet(page.name, frozenset(SCHEMAS), item, is_whole=False)
    for kind, patch in re.findall(r"patch (\w+) [^']*'(\{.*?\})'", commands):
        if "spec" in (content := json.loads(patch)):
            yield Snippet(page.name, frozenset({kind}), content, is_whole=False)


SNIPPETS = [snippet for page in PAGES for snippet in _snippets(page)]


def _errors(snippet: Snippet, kind: str) -> list[str]:
    schema = SCHEMAS[kind]
    if not snippet.is_whole:
        # A null in a patch removes the field.
        fields = {name: value for name, value in snippet.content["spec"].items() if value is not None}
        spec = {key: value for key, value in schema["properties"]["spec"].items() if key != "required"}
        found = Draft202012Validator(spec).iter_errors(fields)
    else:
        found = Draft202012Validator(schema).iter_errors(snippet.content)
    return [f"{kind} {error.json_path}: {error.message}" for error in found]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=lambda snippet: snippet.page)
def test_documented_manifest_fits_its_definition(snippet: Snippet) -> None:
    errors = {kind: _errors(snippet, kind) for kind in snippet.kinds}
    assert not all(errors.values()), min(errors.values(), key=len)


def test_pages_have_snippets_of_each_form() -> None:
    assert {"shared-stores.md", "recovery.md", "schedules.md"} <= {snippet.page for snippet in SNIPPETS}
    assert {snippet.is_whole for snippet in SNIPPETS} == {True, False}


def test_entry_without_the_uid_of_the_present_namespace_is_found() -> None:
    entry = {"namespace": "shop", "uid": "0b0e6a52-6c0f-4d7e-9a57-0d6f0f6a1f3e"}
    wrong = Snippet("", frozenset(), {"spec": {"formerNamespaces": [entry]}}, is_whole=False)
    assert "namespaceUID" in "".join(_errors(wrong, "clusterbackupstore"))
