"""Choose ports, networks and names that are unused on this machine."""

import ipaddress
import json
import os
import random
import re
import socket
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.cluster.errors import ClusterError

_PORTS = range(20000, 30000)
"""Below the kernel's range for outgoing connections, which might take a port while its server is down, and below
Kubernetes' node ports."""

Network = ipaddress.IPv4Network


def free_ports(number: int) -> list[int]:
    """Return ports on which nobody listens."""
    candidates = random.sample(_PORTS, k=len(_PORTS))
    free = [port for port, _ in zip(filter(_is_free, candidates), range(number), strict=False)]
    if len(free) < number:
        raise ClusterError(f"fewer than {number} free TCP ports between {_PORTS.start} and {_PORTS.stop}")
    return free


def free_network(avoid: Iterable[Network], variable: str) -> Network:
    """Return a private network that no route of this machine touches; an environment variable may name it instead."""
    asked = os.environ.get(variable)
    if asked:
        return _parsed(asked, variable)
    taken = [*avoid, *_routed(), *_name_servers()]
    for second in range(88, 250):
        network = Network(f"10.{second}.0.0/20")
        if not any(network.overlaps(other) for other in taken):
            return network
    raise ClusterError(f"every candidate network overlaps a route of this machine; set {variable}, as in 172.30.0.0/20")


def free_name(prefix: str, folders: Iterable[str]) -> str:
    """Return prefix and number such that no folder holds an entry of that name."""
    folders = list(folders)
    names = (f"{prefix}{number}" for number in range(1000))
    return next(name for name in names if not any(os.path.exists(f"{folder}/{name}") for folder in folders))


def asked_port(variable: str) -> int | None:
    """Return the port that an environment variable names, if it is set. Raises ClusterError."""
    text = os.environ.get(variable)
    if text and not (text.isdecimal() and 0 < int(text) < 65536):
        raise ClusterError(f"{variable} must be a TCP port, not {text!r}")
    return int(text) if text else None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
        return True


def _parsed(text: str, variable: str) -> Network:
    try:
        return Network(text)
    except ValueError as error:
        raise ClusterError(f"{variable} must be an IPv4 network, as in 172.30.0.0/20: {error}") from error


def _routed() -> Iterator[Network]:
    routes = subprocess.run(["ip", "-j", "-4", "route", "show", "table", "all"], capture_output=True, check=True).stdout
    for route in json.loads(routes or "[]"):
        if route["dst"] != "default":
            yield Network(route["dst"])


def _name_servers() -> list[Network]:
    path = Path("/etc/resolv.conf")
    text = path.read_text() if path.exists() else ""
    return [Network(address) for address in re.findall(r"^nameserver\s+([\d.]+)\s*$", text, re.MULTILINE)]
