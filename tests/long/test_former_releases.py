"""Former releases read what this program writes, and this program reads what they add to it.

Their code comes from the history of this repository, and runs with the packages of this environment.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.contract.s3_server import S3Server, s3_server
from tests.support.cluster.kubectl import ROOT
from tests.upgrade import sources
from tests.upgrade.__main__ import environment_of, unpack
from tests.upgrade.contents import Contents, contents
from tests.upgrade.release import RELEASES

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(os.geteuid() != 0, reason="restored files get the owners that they had"),
]

CHANGES: dict[str, tuple[Callable[[Path], None], ...]] = {
    "tree": (sources.make_tree, sources.change_tree, sources.change_again),
    "device": (sources.make_device, sources.change_device),
}
"""Commands that create a volume, and change it before each incremental backup."""


@pytest.fixture(scope="module", params=sorted(RELEASES.iterdir()), ids=lambda path: path.name)
def former(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the code of a former release."""
    commit, directory = (request.param / "commit").read_text().strip(), tmp_path_factory.mktemp("former")
    try:
        unpack(commit, directory)
    except subprocess.CalledProcessError:
        pytest.fail(
            f"Commit {commit} is not in this clone. Fetch the whole history: git fetch --unshallow", pytrace=False
        )
    return directory


@pytest.fixture(scope="module")
def server() -> Iterator[S3Server]:
    with s3_server() as running:
        yield running


@dataclass
class Shelf:
    """One prefix of the server, and the programs that use it.

    Attributes:
        former: code of the former release.
        options: of every command.
        held: what the volume held, by id of its backups.
    """

    server: S3Server
    former: Path
    options: list[str]
    held: dict[str, Contents] = field(default_factory=dict)

    def back_up(self, volume: Path, *options: str, code: Path = ROOT) -> None:
        """Make a backup with the program of this release, or of another."""
        told = self.run(code, "backup", str(volume), "--volume-id", "one-volume", *options, store="--to")
        self.held[json.loads(told)["backupId"]] = contents(volume)

    def check(self, code: Path, scratch: Path) -> None:
        """Verify and restore every backup with one program, and compare."""
        for backup, held in self.held.items():
            target = scratch / f"{backup}-{code.name}"
            self.run(code, "verify", backup, store="--from")
            self.run(code, "restore", backup, "--target", str(target), store="--from")
            assert contents(target) == held

    def run(self, code: Path, *words: str, store: str) -> str:
        """Run a program; returns what it prints."""
        credentials = {
            "AWS_ACCESS_KEY_ID": self.server.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.server.credentials.secret_key,
            "AWS_ENDPOINT_URL": self.server.url,
        }
        start = "import sys; from cinderblock.cli.main import main; sys.exit(main())"
        command = [sys.executable, "-c", start, *words, store, *self.options, "--json"]
        done = subprocess.run(
            command, env=environment_of(code) | credentials, capture_output=True, text=True, check=False, cwd=code
        )
        assert done.returncode == 0, f"{code} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(params=["sealed", "unsealed"])
def shelf(request: pytest.FixtureRequest, former: Path, server: S3Server, tmp_path: Path) -> Shelf:
    """Return an empty prefix, with a key or without."""
    key = tmp_path / "2026.key"
    key.write_bytes(base64.b64encode(b"k" * 32))
    sealing = ["--encryption-key-file", str(key)] if request.param == "sealed" else []
    return Shelf(server, former, [f"s3://former/{tmp_path.name}", *sealing])


@pytest.mark.parametrize("kind", CHANGES)
def test_former_release_restores_what_this_one_writes(shelf: Shelf, kind: str, tmp_path: Path) -> None:
    _back_up_all(shelf, tmp_path / "volume", kind)
    shelf.check(shelf.former, tmp_path)


@pytest.mark.parametrize("kind", CHANGES)
def test_former_release_continues_backups_that_this_one_began(shelf: Shelf, kind: str, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    make, *changes = CHANGES[kind]
    make(volume)
    shelf.back_up(volume)
    for number, change in enumerate(changes):
        change(volume)
        shelf.back_up(volume, "--incremental", code=(shelf.former, ROOT)[number % 2])
    shelf.check(ROOT, tmp_path)
    shelf.check(shelf.former, tmp_path)


def _back_up_all(shelf: Shelf, volume: Path, kind: str) -> None:
    make, *changes = CHANGES[kind]
    make(volume)
    shelf.back_up(volume)
    for change in changes:
        change(volume)
        shelf.back_up(volume, "--incremental")
