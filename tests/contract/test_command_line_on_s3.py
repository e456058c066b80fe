"""The command line against a real server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from cinderblock.store.s3.store import S3Store
from tests.contract.s3_server import S3Server

pytestmark = pytest.mark.integration

Program = Callable[..., "subprocess.CompletedProcess[str]"]

STORE = "s3://by-hand/some/prefix"


@pytest.fixture
def program(server: S3Server) -> Program:
    """Run the program with the server's credentials in its environment."""

    def start(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ACCESS_KEY_ID": server.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": server.credentials.secret_key,
            "AWS_ENDPOINT_URL": server.url,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            **more,
        }
        code = "import sys; from cinderblock.cli.main import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", code, *words],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return start


def test_directory_is_backed_up_to_s3_and_restored(program: Program, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    for number in range(20):
        (source / f"file-{number}").write_bytes(os.urandom(number * 10_000))
    made = program("backup", str(source), "--to", STORE, "--json")
    assert made.returncode == 0, made.stderr
    backup_id = json.loads(made.stdout)["backupId"]
    assert program("verify", backup_id, "--from", STORE).returncode == 0
    assert program("restore", backup_id, "--from", STORE, "--target", str(target)).returncode == 0
    assert {path.name: path.read_bytes() for path in target.iterdir()} == {
        path.name: path.read_bytes() for path in source.iterdir()
    }
    assert program("delete", backup_id, "--from", STORE).returncode == 0
    assert json.loads(program("list", "--from", STORE, "--json").stdout) == []


def test_folders_among_the_objects_block_no_deletion(program: Program, server: S3Server, tmp_path: Path) -> None:
    """Consoles and sync tools create empty objects whose key ends with a slash."""
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    store = "s3://folders"
    made = json.loads(program("backup", str(tmp_path), "--to", store, "--json").stdout)
    with closing(S3Store(server.location("folders"), server.credentials)) as opened:
        (manifest,) = (found.key for found in opened.list("backups/"))
        volume = manifest.split("/")[1]
        planted = [f"backups/{volume}/", f"packs/{volume}/{made['backupId']}/", f"packs/{volume}/{made['backupId']}/a/"]
        for key in planted:
            opened._client.put_object(Bucket="folders", Key=key, Body=b"")
        deleted = program("delete", made["backupId"], "--from", store)
        assert deleted.returncode == 0, deleted.stderr
        assert [found.key for found in opened.list("") if not found.key.endswith("/")] == []


def test_wrong_credentials_end_at_once_in_one_line(program: Program) -> None:
    outcome = program("list", "--from", STORE, AWS_SECRET_ACCESS_KEY="wrong-secret")
    assert outcome.returncode == 3
    assert "Check AWS_SECRET_ACCESS_KEY" in outcome.stderr
    assert outcome.stderr.count("\n") == 1
    assert "wrong-secret" not in outcome.stderr


def test_closed_output_pipe_is_not_reported_as_an_error(program: Program, server: S3Server) -> None:
    code = f"""
import os, sys
reader, writer = os.pipe()
os.close(reader)
os.dup2(writer, 1)
from cinderblock.cli.main import main
sys.exit(main(["list", "--from", "{STORE}", "--endpoint-url", "{server.url}"]))
"""
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": server.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": server.credentials.secret_key,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    assert program("backup", __file__, "--to", STORE).returncode == 0
    outcome = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert (outcome.returncode, outcome.stderr) == (141, "")
