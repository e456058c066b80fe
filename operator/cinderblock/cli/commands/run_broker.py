"""``cinderblock broker``"""

from __future__ import annotations

import argparse

from cinderblock.broker.main import main
from cinderblock.broker.settings import PORT, BrokerSettings
from cinderblock.serving.settings import HOST

_DESCRIPTION = """\
Give movers of shared stores what their operations need, until SIGTERM: signatures of single requests to the S3 server,
session credentials, and data keys. Movers authenticate with their ServiceAccount tokens. The credentials and the
encryption keys of a ClusterBackupStore never leave the namespace of this process.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = _DESCRIPTION
    parser.add_argument("--host", default=HOST, help="address to listen on (default: all addresses)")
    parser.add_argument("--port", type=int, default=PORT, help="port, with TLS only (default: %(default)s)")
    parser.add_argument("--health-port", type=int, help="port of /healthz, /readyz and /metrics (default: disabled)")
    parser.add_argument(
        "--tls-secret",
        metavar="NAME",
        default=BrokerSettings().tls_secret,
        help="Secret with tls.crt, tls.key and ca.crt, in the namespace of this process (default: %(default)s)",
    )
    parser.add_argument(
        "--given-certificate",
        action="store_true",
        help="an administrator makes the Secret (default: this process makes and renews it)",
    )
    parser.add_argument(
        "--host-names",
        metavar="NAMES",
        default="localhost",
        help="names of this server for its certificate, separated by commas (default: %(default)s)",
    )
    parser.add_argument(
        "--service-account",
        metavar="NAME",
        help="own ServiceAccount, whose tokens are shown to token services (default: none, so that stores with session"
        " credentials do not work)",
    )
    parser.add_argument(
        "--requests-per-namespace",
        type=int,
        metavar="NUMBER",
        default=BrokerSettings().requests_per_namespace,
        help="most requests of one namespace that are handled at the same time (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the broker. Returns the exit code."""
    return main(settings_from(arguments))


def settings_from(arguments: argparse.Namespace) -> BrokerSettings:
    """Return the settings of the process. Raises SystemExit without a name for the certificate."""
    names = tuple(name for name in (part.strip() for part in arguments.host_names.split(",")) if name)
    if not names:
        raise SystemExit("cinderblock broker: give at least one name with --host-names")
    return BrokerSettings(
        host=arguments.host,
        port=arguments.port,
        health_port=arguments.health_port,
        tls_secret=arguments.tls_secret,
        makes_certificate=not arguments.given_certificate,
        host_names=names,
        service_account=arguments.service_account,
        requests_per_namespace=arguments.requests_per_namespace,
    )
