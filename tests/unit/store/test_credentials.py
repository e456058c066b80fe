"""Credentials come from a Secret, and are never shown."""

from __future__ import annotations

import pickle
from dataclasses import asdict
from pathlib import Path

import pytest

from cinderblock.errors import AccessDenied, InvalidInput
from cinderblock.store.credentials import S3Credentials, credentials_from_secret, read_credentials

SECRET = {"AWS_ACCESS_KEY_ID": b"AKIA123", "AWS_SECRET_ACCESS_KEY": b"wJalr/x+y="}


def mounted(directory: Path, data: dict[str, bytes]) -> str:
    """Write a Secret like the kubelet: links into a directory that is replaced as a whole."""
    (directory / "..data").mkdir()
    for name, value in data.items():
        (directory / "..data" / name).write_bytes(value)
        (directory / name).symlink_to(f"..data/{name}")
    return str(directory)


def test_secret_gives_credentials() -> None:
    assert credentials_from_secret(SECRET) == S3Credentials("AKIA123", "wJalr/x+y=")


def test_mounted_secret_gives_the_same(tmp_path: Path) -> None:
    data = {**SECRET, "AWS_SESSION_TOKEN": b"token", "other": b"ignored"}
    assert read_credentials(mounted(tmp_path, data)) == S3Credentials("AKIA123", "wJalr/x+y=", "token")


def test_white_space_around_a_value_is_not_part_of_it() -> None:
    data = {"AWS_ACCESS_KEY_ID": b" AKIA123\n", "AWS_SECRET_ACCESS_KEY": b"x\r\n", "AWS_SESSION_TOKEN": b"\n"}
    assert credentials_from_secret(data) == S3Credentials("AKIA123", "x", None)


@pytest.mark.parametrize("name", SECRET)
@pytest.mark.parametrize("value", [None, b"", b" \n"])
def test_missing_credential_is_named(tmp_path: Path, name: str, value: bytes | None) -> None:
    data = {key: content for key, content in {**SECRET, name: value}.items() if content is not None}
    with pytest.raises(InvalidInput, match=name) as from_secret:
        credentials_from_secret(data)
    directory = mounted(tmp_path, data)
    with pytest.raises(InvalidInput, match=f"{directory}: it has no {name}") as from_files:
        read_credentials(directory)
    assert from_secret.value.reason == from_files.value.reason == "SecretIncomplete"


def test_missing_directory_has_no_credentials(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="AWS_ACCESS_KEY_ID"):
        read_credentials(str(tmp_path / "absent"))


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "AWS_ACCESS_KEY_ID").mkdir()
    with pytest.raises(AccessDenied, match="AWS_ACCESS_KEY_ID"):
        read_credentials(str(tmp_path))


@pytest.mark.parametrize("value", [b"two\nlines", "sch\u00f6n".encode(), b"nul\0", b"two words"])
def test_value_that_breaks_a_header_is_rejected_and_hidden(value: bytes) -> None:
    with pytest.raises(InvalidInput, match="AWS_SECRET_ACCESS_KEY") as caught:
        credentials_from_secret({**SECRET, "AWS_SECRET_ACCESS_KEY": value})
    assert value.decode() not in str(caught.value)


def test_no_part_shows_in_a_text() -> None:
    credentials = S3Credentials("AKIA123", "secret", "token")
    for text in (repr(credentials), str(credentials), f"{credentials}", f"{[credentials]}"):
        assert not any(value in text for value in asdict(credentials).values())


def test_credentials_can_be_handed_to_another_process() -> None:
    credentials = S3Credentials("AKIA123", "secret", "token")
    assert pickle.loads(pickle.dumps(credentials)) == credentials
