"""``cinderblock gateway``"""

from __future__ import annotations

import argparse

from cinderblock.gateway.main import main
from cinderblock.gateway.settings import HOST, PORT, Auth, GatewaySettings

_DESCRIPTION = """\
Serve Cinder's REST API in front of the Kubernetes API, until told to stop. A project is a namespace, and a token is a
Kubernetes token, with which everything is done that its owner asks for: the gateway itself needs no rights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to listen, and how callers are told apart."""
    parser.description = _DESCRIPTION
    parser.add_argument("--host", help="address to listen on (default: all; with --auth=none: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=PORT, help="default: %(default)s")
    parser.add_argument(
        "--auth",
        type=Auth,
        choices=list(Auth),
        default=Auth.KUBERNETES,
        help="token: callers show Kubernetes tokens. none: for tests only: everybody has the gateway's own rights",
    )
    parser.add_argument(
        "--tls-certificate-file", metavar="FILE", help="PEM certificate chain; read again when it changes"
    )
    parser.add_argument("--tls-key-file", metavar="FILE", help="PEM private key of the certificate")
    parser.add_argument("--health-port", type=int, help="port of /healthz, /readyz and /metrics (default: none)")
    parser.add_argument("--public-url", metavar="URL", help="URL that callers use (default: what their requests say)")


def run(arguments: argparse.Namespace) -> int:
    """Run it. Returns its exit code."""
    if bool(arguments.tls_certificate_file) != bool(arguments.tls_key_file):
        raise SystemExit("cinderblock gateway: --tls-certificate-file and --tls-key-file go together")
    loopback = "127.0.0.1" if arguments.auth is Auth.NONE else HOST
    return main(
        GatewaySettings(
            host=arguments.host or loopback,
            port=arguments.port,
            health_port=arguments.health_port,
            auth=arguments.auth,
            certificate=arguments.tls_certificate_file,
            private_key=arguments.tls_key_file,
            public_url=arguments.public_url,
        )
    )
