"""The driver's command line."""

import argparse
import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Options:
    """The options of one driver process."""

    name: str
    data: str
    kubelet_dir: str
    node: str
    snapshots: bool
    list_snapshots: bool
    metadata: bool
    block_mode: int | None

    @property
    def socket(self) -> str:
        """Return the socket on which the kubelet and the sidecars call the driver."""
        return os.path.join(self.kubelet_dir, "plugins", self.name, "csi.sock")

    @property
    def registration_socket(self) -> str:
        """Return the socket where the kubelet finds the driver."""
        return os.path.join(self.kubelet_dir, "plugins_registry", f"{self.name}-reg.sock")

    @property
    def offers(self) -> list[str]:
        """Return the controller's capabilities by name."""
        offers = ["CREATE_DELETE_VOLUME"]
        if self.snapshots:
            offers += ["CREATE_DELETE_SNAPSHOT", "CLONE_VOLUME"]
        if self.list_snapshots:
            offers.append("LIST_SNAPSHOTS")
        return offers


def parse(arguments: list[str] | None = None) -> Options:
    """Read the command line, or end the process with a usage message."""
    parser = argparse.ArgumentParser(prog="python -m tests.cluster.csi", description="A CSI driver for tests.")
    parser.add_argument("--name", required=True, help="the driver's name")
    parser.add_argument("--data", required=True, type=os.path.abspath, help="directory of image files and faults")
    parser.add_argument("--kubelet-dir", required=True, type=os.path.abspath, help="root directory of the kubelet")
    parser.add_argument("--node", default="node1", help="the node's name")
    parser.add_argument("--no-snapshots", dest="snapshots", action="store_false", help="offer no snapshots, no clones")
    parser.add_argument("--list-snapshots", action="store_true", help="offer LIST_SNAPSHOTS")
    parser.add_argument("--no-metadata", dest="metadata", action="store_false", help="offer no changed blocks")
    parser.add_argument("--block-mode", type=lambda text: int(text, 8), help="mode of published devices, as in 0666")
    parsed = parser.parse_args(arguments)
    if parsed.list_snapshots and not parsed.snapshots:
        parser.error("--list-snapshots needs snapshots")
    parsed.metadata = parsed.metadata and parsed.snapshots
    return Options(**vars(parsed))
