"""`cinderblock gateway` on the command line."""

from __future__ import annotations

import argparse

import pytest

from cinderblock.cli.commands import run_gateway
from cinderblock.gateway.settings import Auth, GatewaySettings


def settings_of(monkeypatch: pytest.MonkeyPatch, *words: str) -> GatewaySettings:
    seen: list[GatewaySettings] = []
    monkeypatch.setattr(run_gateway, "main", lambda settings: seen.append(settings) or 0)
    parser = argparse.ArgumentParser()
    run_gateway.add_arguments(parser)
    assert run_gateway.run(parser.parse_args(words)) == 0
    return seen[0]


def test_tokens_are_asked_for_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(monkeypatch)
    assert (settings.auth, settings.host, settings.port) == (Auth.KUBERNETES, "0.0.0.0", 8776)


def test_without_tokens_it_listens_to_this_machine_alone_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(monkeypatch, "--auth=none").host == "127.0.0.1"
    assert settings_of(monkeypatch, "--auth=none", "--host=192.0.2.1").host == "192.0.2.1"


def test_a_certificate_needs_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="go together"):
        settings_of(monkeypatch, "--tls-certificate-file=x")
