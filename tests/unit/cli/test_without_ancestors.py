"""Every command works with backups whose ancestors have expired, and with packs that they have inherited."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cinderblock.repository.catalog import Catalog
from cinderblock.repository.expiry import Expiry
from tests.unit.cli.conftest import Cli, Opened
from tests.unit.cli.test_catalog_commands import STORE, make_chain


def expire(opened: Opened, backup_ids: list[str], volume_id: str) -> dict[str, int]:
    """Remove expired backups as the operator does."""
    begin = partial(Catalog(opened.inside, "").references, volume_id)
    run = Expiry(opened.inside, "", volume_id, backup_ids, begin, clock=lambda: datetime.now(UTC))
    for _ in run.steps():
        pass
    return run.removed


def test_commands_work_without_ancestors(cli: Cli, opened: Opened, tree: Path, tmp_path: Path) -> None:
    first, second, third = make_chain(cli, tree)
    volume = str(cli("show", third, "--from", STORE, "--json").json["volumeId"])
    assert set(expire(opened, [first, second], volume)) == {first, second}
    (listed,) = cli("list", "--from", STORE, "--json").json
    assert (listed["id"], listed["readable"]) == (third, True)
    shown = cli("show", third, "--from", STORE, "--json")
    assert (shown.code, shown.json["neededBy"]) == (0, [])
    assert cli("show", first, "--from", STORE).code != 0
    assert cli("verify", third, "--from", STORE).code == 0
    target = tmp_path / "restored"
    target.mkdir()
    assert cli("restore", third, "--target", str(target), "--from", STORE).code == 0
    assert (target / "file-0").read_text() == "content 0"
    (tree / "file-3").write_text("content 3")
    child = cli("backup", str(tree), "--to", STORE, "--incremental", "--json")
    assert child.code == 0
    assert cli("verify", child.json["backupId"], "--from", STORE).code == 0
    refused = cli("delete", third, "--from", STORE)
    assert child.json["backupId"] in refused.err
    refused = cli("delete", first, "--volume-id", volume, "--from", STORE)
    assert refused.code != 0
    assert "need its data" in refused.err
    assert cli("delete", child.json["backupId"], "--from", STORE).code == 0
    assert cli("delete", third, "--from", STORE).code == 0
    assert list(opened.inside.list("")) == []
