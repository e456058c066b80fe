"""The pods' network: a bridge on this machine that exists before the first pod, and the rules for traffic beyond it."""

import contextlib
import ipaddress
import json
import shlex
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.cluster import files, host_state
from tests.cluster.errors import ClusterError
from tests.cluster.settings import Settings

_FORGOTTEN_CHAIN = "KUBE-FIREWALL"


def start(settings: Settings) -> None:
    """Create the bridge, its rules and the pods' network configuration, unless they exist."""
    _enable_forwarding()
    if not is_up(settings):
        _run("ip", "link", "add", settings.name, "type", "bridge")
    prefix = ipaddress.IPv4Network(settings.pods).prefixlen
    _run("ip", "address", "replace", f"{settings.address}/{prefix}", "dev", settings.name)
    _run("ip", "link", "set", settings.name, "up")
    for table, chain, rule in _rules(settings):
        if not _succeeds("iptables", "-w", "-t", table, "-C", chain, *rule):
            _run("iptables", "-w", "-t", table, "-I", chain, *rule)
    _write_configuration(settings)


def is_up(settings: Settings) -> bool:
    """Tell whether the bridge is there."""
    # Not by /sys/class/net: that shows the network in which it was mounted, which need not be the one we are in.
    return settings.name in [name for _, name in socket.if_nameindex()]


def stop(settings: Settings, proxy: Path | None) -> None:
    """Remove everything that `start`, the pods and the given kube-proxy left, if it still exists."""
    if proxy:
        # Its exit code says whether every table could be looked into, not whether ours is clean.
        _succeeds(str(proxy), "--cleanup")
        for tool in ("iptables", "ip6tables"):
            _remove_forgotten_chain(tool)
    for table in ("nat", "filter"):
        for rule in _our_rules(settings, table):
            _run("iptables", "-w", "-t", table, "-D", *rule)
    for link in [*_ports(settings.name), settings.name]:
        # A pod's link may be vanishing by itself at this moment, with the pod's namespace.
        _succeeds("ip", "link", "delete", link)
    for left in host_state.CNI_RESULTS.glob(f"{settings.name}-*"):
        left.unlink()


@contextlib.contextmanager
def cut_off(settings: Settings, chain: str, port: int) -> Iterator[None]:
    """Drop everything that pods send to a TCP port, without any notice to the sender.

    Args:
        settings: of the running cluster.
        chain: FORWARD for what runs in pods, INPUT for what runs on this machine.
        port: where it would arrive.
    """
    rule = [chain, "-i", settings.name, "-p", "tcp", "--dport", str(port), *_mark(settings), "-j", "DROP"]
    _run("iptables", "-w", "-I", *rule)
    try:
        yield
    finally:
        _run("iptables", "-w", "-D", *rule)


def is_proxied_by_another() -> bool:
    """Tell whether a kube-proxy has left its mark on this machine's packet filter."""
    return _succeeds("iptables", "-w", "-t", "nat", "-n", "-L", "KUBE-SERVICES")


def _enable_forwarding() -> None:
    bridged = "net/bridge/bridge-nf-call-iptables"
    if not Path("/proc/sys", bridged).exists() and not _succeeds("modprobe", "br_netfilter"):
        raise ClusterError("the kernel's br_netfilter is missing: without it Services do not work between pods")
    host_state.set_sysctl(bridged, "1")
    host_state.set_sysctl("net/ipv4/ip_forward", "1")


def _rules(settings: Settings) -> list[tuple[str, str, list[str]]]:
    """Return table, chain and rule, the last being the first to be asked.

    Out under this machine's address; in and out whatever the default policy is. But nothing for the address of a
    Service that is no more: whatever is outside of this machine would answer in its place.
    """
    mark = _mark(settings)
    return [
        ("nat", "POSTROUTING", ["-s", settings.pods, "!", "-d", settings.pods, *mark, "-j", "MASQUERADE"]),
        ("filter", "FORWARD", ["-i", settings.name, *mark, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-o", settings.name, *mark, "-j", "ACCEPT"]),
        ("filter", "FORWARD", ["-d", settings.services, *mark, "-j", "REJECT"]),
        ("filter", "OUTPUT", ["-d", settings.services, *mark, "-j", "REJECT"]),
    ]


def _mark(settings: Settings) -> list[str]:
    return ["-m", "comment", "--comment", f"cinderblock test cluster {settings.name}"]


def _our_rules(settings: Settings, table: str) -> Iterator[list[str]]:
    """Return all rules with our mark, in the form in which they are added.

    This includes rules left by killed processes.
    """
    done = subprocess.run(["iptables", "-w", "-t", table, "-S"], capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        words = shlex.split(line)
        if words[0] == "-A" and _mark(settings)[-1] in words:
            yield words[1:]


def _write_configuration(settings: Settings) -> None:
    ipam = {
        "type": "host-local",
        "dataDir": str(settings.directory / "addresses"),
        "ranges": [[{"subnet": settings.pods, "gateway": settings.address}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": settings.name, "isGateway": True, "hairpinMode": True, "ipam": ipam}
    text = json.dumps({"cniVersion": "0.4.0", "name": settings.name, "plugins": [bridge]})
    files.write(settings.directory / "cni" / "10-bridge.conflist", text)


def _remove_forgotten_chain(tool: str) -> None:
    """Remove the one chain that kube-proxy makes and its cleanup leaves, empty."""
    for chain in ("INPUT", "OUTPUT"):
        while _succeeds(tool, "-w", "-D", chain, "-j", _FORGOTTEN_CHAIN):
            pass
    for action in ("-F", "-X"):
        _succeeds(tool, "-w", action, _FORGOTTEN_CHAIN)


def _ports(bridge: str) -> Iterator[str]:
    done = subprocess.run(["ip", "-json", "link", "show", "master", bridge], capture_output=True, check=False)
    yield from sorted(link["ifname"] for link in json.loads(done.stdout or "[]") if link)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
