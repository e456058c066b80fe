"""docs/guide/disaster.md: its commands, options and objects exist."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.cli.main import load, make_command_parser
from tests.support.recovery.runbook import RUNBOOK, blocks, command_lines

OURS = [line.partition(" > ")[0] for line in command_lines() if line.startswith("cinderblock ")]


def test_runbook_has_commands() -> None:
    names = [line.split()[1] for line in OURS]
    assert names == ["key", "recover", "recover", "recover", "recover"]


@pytest.mark.parametrize("line", OURS)
def test_commands_are_accepted(line: str) -> None:
    _, name, *words = shlex.split(line)
    make_command_parser(name, load(name)).parse_intermixed_args(words)


def test_options_in_the_text_exist() -> None:
    known = {
        option for name in ("recover", "key") for option in make_command_parser(name, load(name))._option_string_actions
    }
    elsewhere = {"--take-ownership"}
    assert set(re.findall(r"`(--[a-z-]+)", RUNBOOK.read_text("utf-8"))) <= known | elsewhere


def test_store_of_the_runbook_is_read_only_and_the_default() -> None:
    [text] = blocks("3. Prepare the namespace", "yaml")
    store = BackupStore.model_validate(yaml.safe_load(text))
    assert store.is_read_only
    assert store.is_default
