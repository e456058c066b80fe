"""`cinderblock broker` builds its settings from the command line."""

from __future__ import annotations

import argparse

import pytest

from cinderblock.broker.settings import BrokerSettings
from cinderblock.cli.commands import run_broker


def settings_of(*arguments: str) -> BrokerSettings:
    parser = argparse.ArgumentParser()
    run_broker.add_arguments(parser)
    return run_broker.settings_from(parser.parse_args(arguments))


def test_defaults_are_those_of_the_settings() -> None:
    assert settings_of() == BrokerSettings()


def test_options_set_the_certificate_and_its_names() -> None:
    settings = settings_of("--given-certificate", "--tls-secret=mine", "--host-names=a.svc, b.svc")
    assert (settings.makes_certificate, settings.tls_secret, settings.host_names) == (False, "mine", ("a.svc", "b.svc"))


def test_certificate_needs_a_name() -> None:
    with pytest.raises(SystemExit, match="host-names"):
        settings_of("--host-names=,")


def test_health_server_is_plain_http_on_all_addresses() -> None:
    assert settings_of().of_health_server() is None
    health = settings_of("--host=192.0.2.1", "--health-port=9000").of_health_server()
    assert health is not None
    assert (health.host, health.port, health.certificate, health.connections) == ("0.0.0.0", 9000, None, 32)
