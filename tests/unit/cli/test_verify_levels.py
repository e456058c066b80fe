"""``cinderblock verify --level``: all damage is named, and the exit code shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cinderblock.repository.verify import findings
from tests.unit.cli.conftest import Cli, Opened

STORE = "s3://backups"
LEVELS = pytest.mark.parametrize("level", ["structure", "data"])


@pytest.fixture(autouse=True)
def _no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "SETTLE_SECONDS", 0.0)


@pytest.fixture
def chain(cli: Cli, tmp_path: Path) -> list[str]:
    """Make a full backup, and an incremental one. Return their ids."""
    source = tmp_path / "source"
    source.mkdir()
    ids = []
    for number in range(2):
        (source / f"file-{number}").write_bytes(os.urandom(50_000))
        ids.append(cli("backup", str(source), "--to", STORE, "--incremental", "--json").json["backupId"])
    return ids


def packs(opened: Opened, backup_id: str) -> list[str]:
    return [found.key for found in opened.inside.list("packs/") if f"/{backup_id}/" in found.key]


@LEVELS
def test_sound_backup_ends_with_success(cli: Cli, chain: list[str], level: str) -> None:
    outcome = cli("verify", chain[1], "--from", STORE, "--level", level)
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.splitlines()[0].split() == ["sound", chain[1]]
    wire = cli("verify", chain[1], "--from", STORE, "--level", level, "--json").json
    assert (wire["succeeded"], wire["level"].lower(), wire["packsVerified"], wire["packs"]) == (True, level, 2, 2)


@LEVELS
def test_damage_ends_with_its_code_and_names_everything(cli: Cli, opened: Opened, chain: list[str], level: str) -> None:
    lost = [*packs(opened, chain[0]), *packs(opened, chain[1])]
    opened.inside.delete(lost)
    outcome = cli("verify", chain[1], "--from", STORE, "--level", level)
    assert outcome.code == 5
    assert outcome.out.splitlines()[0].split() == ["damaged", "2", "objects"]
    assert outcome.out.splitlines()[1].split() == ["affected", f"{chain[1]},", chain[0]]
    assert all(key in outcome.err for key in lost)
    outcome = cli("verify", chain[1], "--from", STORE, "--level", level, "--json")
    assert outcome.code == 5
    assert sorted(found["key"] for found in outcome.json["damaged"]) == sorted(lost)
    assert (outcome.json["succeeded"], outcome.json["affected"]) == (False, [chain[1], chain[0]])


def test_parts_divide_the_packs(cli: Cli, chain: list[str]) -> None:
    words = ("verify", chain[1], "--from", STORE, "--level", "data", "--parts", "3")
    runs = [cli(*words, "--part", str(part), "--json").json for part in (1, 2, 3)]
    assert [(run["part"], run["parts"]) for run in runs] == [(1, 3), (2, 3), (3, 3)]
    assert sum(run["packsVerified"] for run in runs) == 2
    today = cli(*words, "--json").json
    assert today["part"] in (1, 2, 3)
    assert f"part     {today['part']} of 3" in cli(*words).out


@pytest.mark.parametrize(
    "words",
    [
        ("--parts", "3"),
        ("--level", "structure", "--parts", "3"),
        ("--level", "data", "--part", "1"),
        ("--level", "data", "--parts", "3", "--part", "4"),
        ("--level", "data", "--parts", "367"),
        ("--level", "data", "--sample", "5%"),
    ],
)
def test_options_that_contradict_each_other_are_refused(cli: Cli, chain: list[str], words: tuple[str, ...]) -> None:
    outcome = cli("verify", chain[1], "--from", STORE, *words)
    assert outcome.code == 3
    assert outcome.err.startswith("cinderblock verify: Cannot ")
    assert cli("verify", chain[1], "--from", STORE, "--level", "restore").code == 2


def test_other_manifest_without_its_key_is_mentioned(cli: Cli, tmp_path: Path, keys: dict[str, Path]) -> None:
    (tmp_path / "file").write_bytes(b"content")
    volume = ("--volume-id", "volume", "--to", STORE, "--json")
    cli("backup", str(tmp_path / "file"), *volume, "--encryption-key-file", str(keys["old"]))
    second = cli("backup", str(tmp_path / "file"), *volume, "--encryption-key-file", str(keys["young"])).json
    outcome = cli(
        "verify", second["backupId"], "--from", STORE, "--level", "data", "--encryption-key-file", str(keys["young"])
    )
    assert outcome.code == 0
    assert "1 manifest of the volume cannot be read" in outcome.err
