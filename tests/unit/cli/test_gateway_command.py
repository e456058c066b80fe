"""`cinderblock gateway` builds its settings from the command line."""

from __future__ import annotations

import argparse

import pytest

from cinderblock.cli.commands import run_gateway
from cinderblock.gateway.settings import AuthMode, GatewaySettings


def settings_of(*arguments: str) -> GatewaySettings:
    parser = argparse.ArgumentParser()
    run_gateway.add_arguments(parser)
    return run_gateway.settings_from(parser.parse_args(arguments))


def test_default_requires_tokens_and_listens_on_all_addresses() -> None:
    settings = settings_of()
    assert (settings.auth, settings.host, settings.port) == (AuthMode.TOKEN, "0.0.0.0", 8776)
    assert settings.of_health_server() is None


def test_without_authentication_the_default_address_is_loopback() -> None:
    assert settings_of("--auth=none").host == "127.0.0.1"
    assert settings_of("--auth=none", "--host=192.0.2.1").host == "192.0.2.1"


def test_certificate_needs_its_key() -> None:
    with pytest.raises(SystemExit, match="together"):
        settings_of("--tls-certificate-file=x")


def test_health_server_is_plain_http_on_all_addresses() -> None:
    options = ("--auth=none", "--tls-certificate-file=c", "--tls-key-file=k", "--health-port=9000")
    health = settings_of(*options).of_health_server()
    assert health is not None
    assert (health.host, health.port, health.certificate, health.private_key) == ("0.0.0.0", 9000, None, None)
