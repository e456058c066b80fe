"""Parsing of command lines, help, and imports at start."""

from __future__ import annotations

import argparse
import contextlib
import errno
import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from boto3.session import Session

from cinderblock.api.v1alpha1.store import ServerSideAlgorithm, ServerSideEncryption
from cinderblock.cli.arguments import percentage, rate, store_url
from cinderblock.cli.main import COMMANDS, load, main, make_command_parser, make_parser
from cinderblock.cli.signals import STOP_SIGNALS
from cinderblock.errors import InvalidInput
from cinderblock.store.s3 import client
from tests.unit.cli.conftest import Cli, Opened

FOR_PEOPLE = [name for name, command in COMMANDS.items() if not command.in_cluster]


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser of a command."""
    return make_command_parser(name, load(name))


def loaded_by(module: str) -> set[str]:
    """Return the packages that importing a module in a new process loads."""
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(printed.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str) -> None:
    parser = parser_of(name)
    assert parser.description
    assert parser.format_help()
    assert name in make_parser().format_help()


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_examples_in_the_help_are_valid(name: str) -> None:
    parser = parser_of(name)
    assert parser.epilog
    examples = [line.split(" | ")[0].split("  (")[0].strip() for line in parser.epilog.splitlines()]
    typed = [words.split()[2:] for words in examples if words.startswith(f"cinderblock {name} ")]
    assert typed
    for words in typed:
        parser.parse_intermixed_args([word.rstrip(".") for word in words])


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_takes_a_secret(name: str) -> None:
    options = {option for action in parser_of(name)._actions for option in action.option_strings}
    suspicious = {
        option for option in options if any(word in option for word in ("secret", "token", "password", "access", "key"))
    }
    # Files, ids of keys, ids with times, and the names of Secrets.
    harmless = {
        *("--encryption-key-file", "--tls-key-file", "--active-key", "--read-only-keys"),
        *("--accounts-secret", "--tls-secret", "--sse-kms-key-id"),
    }
    assert suspicious <= harmless


def test_importing_the_program_imports_no_command() -> None:
    loaded = loaded_by("cinderblock.cli.main")
    assert not {"boto3", "botocore", "kopf", "pydantic", "kubernetes", "aiohttp", "cryptography", "zstandard"} & loaded


def test_mover_does_not_import_kopf_or_kubernetes() -> None:
    loaded = loaded_by("cinderblock.cli.commands.run_mover")
    assert not {"kopf", "kubernetes", "aiohttp"} & loaded


def test_backup_does_not_import_boto3_at_start() -> None:
    loaded = loaded_by("cinderblock.cli.commands.backup")
    assert not {"boto3", "botocore"} & loaded


def test_garbage_collection_is_enabled_after_loading_a_command() -> None:
    load("backup")
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://backups", ("backups", "")),
        ("s3://backups/", ("backups", "")),
        ("s3://backups/a/b-c_1.2=x", ("backups", "a/b-c_1.2=x")),
        ("s3://my.bucket-1/a/", ("my.bucket-1", "a")),
    ],
)
def test_store_urls_are_parsed(text: str, expected: tuple[str, str]) -> None:
    assert store_url(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "backups",
        "s3:/backups",
        "s3://",
        "s3://ab",
        "S3://backups",
        "s3://Backups",
        "s3://backups//a",
        "s3://backups/../other",
        "s3://backups/a/./b",
        "s3://backups/a b",
        "https://backups/a",
        "s3://backups?x=1",
    ],
)
def test_invalid_store_urls_are_rejected(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="s3://CONTAINER/PREFIX"):
        store_url(text)


def test_password_in_a_store_url_is_not_repeated(cli: Cli) -> None:
    outcome = cli("list", "--from", "s3://AKIAXYZ:hunter2@backups/a")
    assert outcome.code == 2
    assert "hunter2" not in outcome.out + outcome.err


@pytest.mark.parametrize(
    ("text", "expected"),
    [("65536", 65536), ("64K", 65536), ("10M", 10 << 20), ("1.5GiB/s", 3 << 29), ("2mb", 2 << 20), ("1g/s", 1 << 30)],
)
def test_rates_are_parsed(text: str, expected: int) -> None:
    assert rate(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "10", "1K", "fast", "10X", "1e9", "inf", "nan"])
def test_invalid_rates_are_rejected(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        rate(text)


@pytest.mark.parametrize(("text", "expected"), [("5%", 5.0), ("100", 100.0), ("0.1%", 0.1)])
def test_percentages_are_parsed(text: str, expected: float) -> None:
    assert percentage(text) == expected


@pytest.mark.parametrize("text", ["0", "0%", "-5%", "101", "all", "nan", ""])
def test_invalid_percentages_are_rejected(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        percentage(text)


@pytest.mark.parametrize(
    "words", [["nope"], ["list"], ["list", "--fro", "s3://backups"], ["restore", "--from", "s3://b"]]
)
def test_invalid_command_line_prints_usage(cli: Cli, words: list[str]) -> None:
    outcome = cli(*words)
    assert outcome.code == 2
    assert outcome.err.startswith("usage: cinderblock")


@pytest.mark.parametrize("name", ["../../x", "a/b", "", "a b", "x" * 65])
def test_ids_cannot_contain_paths(cli: Cli, name: str) -> None:
    assert cli("delete", name, "--from", "s3://backups").code == 2


def test_help_is_printed_without_a_command(cli: Cli) -> None:
    outcome = cli()
    assert outcome.code == 0
    assert all(name in outcome.out for name in COMMANDS)
    assert "exit codes:" in outcome.out


def test_version_is_printed(cli: Cli) -> None:
    outcome = cli("--version")
    assert outcome.code == 0
    assert outcome.out.startswith("cinderblock ")


def test_options_become_a_store_location(cli: Cli, opened: Opened) -> None:
    options = ("--endpoint-url", "https://s3.example:9000", "--region", "eu-west-1", "--addressing", "virtual")
    assert cli("list", "--from", "s3://backups/p", *options, "--limit-rate", "10M").code == 0
    (location,) = opened.locations
    assert location.to_wire() == {
        "endpointUrl": "https://s3.example:9000",
        "region": "eu-west-1",
        "container": "backups",
        "prefix": "p",
        "addressing": "virtual",
        "access": "ReadOnly",
        "createContainer": False,
        "uploadBytesPerSecond": 10 << 20,
        "downloadBytesPerSecond": 10 << 20,
    }


def test_options_for_stored_objects_become_part_of_the_location(cli: Cli, opened: Opened, tmp_path: Path) -> None:
    options = ("--storage-class", "STANDARD_IA", "--sse", "aws:kms", "--sse-kms-key-id", "alias/backups")
    assert cli("backup", str(tmp_path), "--to", "s3://backups", *options).code == 0
    (location,) = opened.locations
    assert location.storage_class == "STANDARD_IA"
    assert location.server_side_encryption == ServerSideEncryption(
        algorithm=ServerSideAlgorithm.KMS, kms_key_id="alias/backups"
    )


def test_kms_key_requires_kms(cli: Cli, opened: Opened, tmp_path: Path) -> None:
    outcome = cli("backup", str(tmp_path), "--to", "s3://backups", "--sse-kms-key-id", "alias/backups")
    assert (outcome.code, opened.locations) == (3, [])
    assert "--sse-kms-key-id requires --sse aws:kms" in outcome.err


def test_expected_error_is_one_line_without_traceback(cli: Cli, opened: Opened) -> None:
    opened.faulty.on("list").raises(InvalidInput("this and that"))
    outcome = cli("list", "--from", "s3://backups")
    assert (outcome.code, outcome.out, outcome.err) == (3, "", "cinderblock list: this and that\n")


@pytest.mark.parametrize("error", [KeyError("a secret"), RecursionError("a secret"), ValueError("a secret")])
def test_unexpected_error_is_one_line_with_its_place_and_without_its_text(
    cli: Cli, opened: Opened, error: Exception
) -> None:
    opened.faulty.on("list").raises(error).times(2)
    outcome = cli("list", "--from", "s3://backups")
    assert (outcome.code, outcome.out) == (1, "")
    assert f"an unexpected {type(error).__name__} in faults.py line " in outcome.err
    assert outcome.err.count("\n") == 1
    assert "a secret" not in outcome.err
    as_json = cli("list", "--from", "s3://backups", "--json")
    assert (as_json.code, as_json.json["succeeded"], as_json.json["reason"]) == (1, False, "Unexpected")


def test_unexpected_error_of_the_system_says_what_it_is(cli: Cli, opened: Opened) -> None:
    opened.faulty.on("list").raises(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    outcome = cli("list", "--from", "s3://backups")
    assert outcome.code == 1
    assert "OSError (No space left on device)" in outcome.err


def test_unexpected_error_of_a_pod_keeps_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise ValueError("traceback")

    monkeypatch.setattr("cinderblock.cli.commands.run_operator.main", fail)
    with pytest.raises(ValueError, match="traceback"):
        cli("operator")


@pytest.mark.parametrize(("name", "target"), [("operator", "run_operator"), ("mover", "run_mover")])
def test_exit_codes_of_container_programs_are_returned(
    name: str, target: str, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"cinderblock.cli.commands.{target}.main", lambda *_: 17)
    assert cli(name).code == 17


def test_second_interrupt_ends_at_once(
    opened: Opened, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.faulty.on("list").raises(KeyboardInterrupt())
    # Programs in the background of a shell ignore SIGINT.
    before = {number: signal.signal(number, signal.SIG_DFL) for number in STOP_SIGNALS}
    try:
        assert main(["list", "--from", "s3://backups"]) == 130
        assert [signal.getsignal(number) for number in STOP_SIGNALS] == [signal.SIG_DFL] * 3
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    assert capsys.readouterr().err == "cinderblock list: stopped by SIGINT\n"


BLOCKED_COMMAND = """
import os, sys
from cinderblock.cli import main, standard_streams

write = standard_streams.OutputFile.write

def report_and_write(self, content):
    os.write(2, b"x" if self.fileno() == 1 else b"")
    return write(self, content)

standard_streams.OutputFile.write = report_and_write
sys.exit(main.main(["list", "--help"]))
"""
"""A command that writes an x on standard error whenever it is about to write to standard output."""


def test_one_signal_ends_a_command_whose_output_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while os.write(writer, bytes(4096)):
            pass
    os.set_blocking(writer, True)
    with subprocess.Popen([sys.executable, "-c", BLOCKED_COMMAND], stdout=writer, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.read(1) == b"x"
            time.sleep(0.5)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 128 + signal.SIGTERM
        finally:
            process.kill()
        assert process.stderr.read().replace(b"x", b"") == b"cinderblock list: stopped by SIGTERM\n"
    os.close(reader)
    os.close(writer)


def test_missing_aws_profile_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setattr(client, "_session", Session)
    with pytest.raises(InvalidInput, match="nowhere"):
        client.ambient_region()
