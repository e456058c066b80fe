"""How this machine reaches package indexes is handed to an image's build, and only what is set."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.cluster.image import package_client_secrets


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home directory, on a machine whose own pip is not configured."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("tests.cluster.image.SYSTEM_PIP_CONFIGURATION", tmp_path / "etc" / "pip.conf")
    return tmp_path


def test_without_settings_the_build_gets_nothing(home: Path) -> None:
    assert package_client_secrets(home, {}) == []


def test_index_of_pip_is_uvs_index_too(home: Path) -> None:
    assert _given(home, {"PIP_INDEX_URL": "https://mirror.test/simple"}) == {
        "PIP_INDEX_URL": "https://mirror.test/simple",
        "UV_DEFAULT_INDEX": "https://mirror.test/simple",
    }


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_index_of_uv_takes_precedence_for_uv(home: Path, name: str) -> None:
    given = _given(home, {"PIP_INDEX_URL": "https://pip.test/simple", name: "https://uv.test/simple"})
    assert given == {"PIP_INDEX_URL": "https://pip.test/simple", name: "https://uv.test/simple"}


def test_environment_wins_over_pips_files(home: Path) -> None:
    (home / ".pip").mkdir()
    (home / ".pip" / "pip.conf").write_text(
        "[global]\nindex-url = https://file.test/\nextra-index-url =\n  https://a\n"
    )
    assert _given(home, {})["PIP_INDEX_URL"] == "https://file.test/"
    given = _given(home, {"PIP_INDEX_URL": "https://environment.test/"})
    assert given["PIP_INDEX_URL"] == "https://environment.test/"
    assert given["PIP_EXTRA_INDEX_URL"] == given["UV_INDEX"] == "https://a"


def test_certificates_reach_every_client_as_a_file(home: Path) -> None:
    bundle = home / "ca.pem"
    bundle.write_text("-----BEGIN CERTIFICATE-----\n")
    options = package_client_secrets(home, {"PIP_CERT": str(bundle)})
    assert f"id=package_ca,src={bundle}" in options
    assert _read(home) == dict.fromkeys(("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE"), "/run/secrets/package_ca")


def test_missing_certificate_files_are_omitted(home: Path) -> None:
    assert package_client_secrets(home, {"SSL_CERT_FILE": str(home / "missing")}) == []


def test_shell_reads_any_value_unchanged(home: Path) -> None:
    url = "https://user:p$a`s's\"@mirror.test/simple"
    assert _given(home, {"PIP_INDEX_URL": url})["PIP_INDEX_URL"] == url


def test_files_for_the_build_are_readable_only_by_their_owner(home: Path) -> None:
    _given(home, {"PIP_INDEX_URL": "https://user:password@mirror.test/simple"})
    assert (home / "package_env").stat().st_mode & 0o077 == 0


def _given(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    (folder / "package_env").unlink(missing_ok=True)
    assert package_client_secrets(folder, environment) == ["--secret", f"id=package_env,src={folder / 'package_env'}"]
    return _read(folder)


def _read(folder: Path) -> dict[str, str]:
    """Return the value that a shell reads from the file."""
    shell = 'set -a; . "$0"; exec env -0'
    done = subprocess.run(
        ["/bin/sh", "-c", shell, str(folder / "package_env")], env={}, capture_output=True, text=True, check=True
    )
    found = dict(entry.split("=", 1) for entry in done.stdout.split("\0") if entry)
    return {name: value for name, value in found.items() if name not in ("PWD", "SHLVL", "_")}
