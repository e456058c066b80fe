"""``cinderblock gateway``"""

from __future__ import annotations

import argparse

from cinderblock.gateway.main import main
from cinderblock.gateway.settings import PORT, AuthMode, GatewaySettings
from cinderblock.serving.client_address import TrustedProxies
from cinderblock.serving.settings import HOST

_DESCRIPTION = """\
Serve Cinder's REST API in front of the Kubernetes API until SIGTERM. A project is a namespace. Callers authenticate
with Kubernetes tokens, and the gateway passes each caller's token on, so it needs no rights of its own.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command."""
    parser.description = _DESCRIPTION
    parser.add_argument("--host", help="address to listen on (default: all addresses; with --auth=none: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=PORT, help="port of the API (default: %(default)s)")
    parser.add_argument(
        "--auth",
        type=AuthMode,
        choices=list(AuthMode),
        default=AuthMode.TOKEN,
        help="token: callers send Kubernetes tokens (default). none: all callers act with the gateway's own"
        " credentials, for tests only",
    )
    parser.add_argument(
        "--tls-certificate-file", metavar="FILE", help="PEM certificate chain, reloaded when the file changes"
    )
    parser.add_argument("--tls-key-file", metavar="FILE", help="PEM private key of the certificate")
    parser.add_argument("--health-port", type=int, help="port of /healthz, /readyz and /metrics (default: disabled)")
    parser.add_argument(
        "--public-url", metavar="URL", help="URL for links in responses (default: taken from the Host header)"
    )
    parser.add_argument(
        "--trusted-proxies",
        metavar="NETWORKS",
        default="",
        help="addresses and networks of proxies whose X-Forwarded-For names the client, separated by commas"
        " (default: none; other forwarding headers are never used)",
    )
    parser.add_argument(
        "--connections-per-client",
        type=int,
        metavar="NUMBER",
        default=GatewaySettings().connections_per_client,
        help="most connections, and most unanswered requests, of one client address; a trusted proxy may hold more"
        " connections (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the gateway. Returns the exit code."""
    return main(settings_from(arguments))


def settings_from(arguments: argparse.Namespace) -> GatewaySettings:
    """Return the settings of the process. Raises SystemExit for a certificate without key, or a key without one."""
    if bool(arguments.tls_certificate_file) != bool(arguments.tls_key_file):
        raise SystemExit("cinderblock gateway: give --tls-certificate-file and --tls-key-file together")
    return GatewaySettings(
        host=arguments.host or ("127.0.0.1" if arguments.auth is AuthMode.NONE else HOST),
        port=arguments.port,
        health_port=arguments.health_port,
        auth=arguments.auth,
        certificate=arguments.tls_certificate_file,
        private_key=arguments.tls_key_file,
        public_url=arguments.public_url,
        trusted_proxies=TrustedProxies.parse(text for text in arguments.trusted_proxies.split(",") if text).networks,
        connections_per_client=arguments.connections_per_client,
    )
