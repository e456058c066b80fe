"""Run a real single-node Kubernetes on this machine: `python -m tests.cluster up`, from the root of the repository."""

import argparse
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from tests.cluster import cluster, containers, debian, status, toolchain
from tests.cluster import run as running
from tests.cluster import settings as choices
from tests.cluster.errors import ClusterError

_SETTINGS = f"""\
environment:
  CINDERBLOCK_CLUSTER_DIR    directory of everything that the cluster writes (default: {choices.DEFAULT_DIRECTORY})
  CINDERBLOCK_KEEP_CLUSTER   1: `run` leaves a cluster that it started
  Read at the first start only; whatever is not set is chosen such that it is in nobody's way:
  CINDERBLOCK_BRIDGE         name of the pods' bridge, as in cbk0
  CINDERBLOCK_POD_CIDR       addresses of pods, as in 172.30.0.0/20
  CINDERBLOCK_SERVICE_CIDR   addresses of Services
  CINDERBLOCK_PORT_<NAME>    TCP port of one listener, as in CINDERBLOCK_PORT_APISERVER
"""


def main() -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args()
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"error: {error}: the cluster belongs to root", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: `python -m tests.cluster down` removes what was started", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster",
        description=__doc__,
        epilog=_SETTINGS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    add("up", _up, "start the cluster, or what of it does not run")
    add("down", _down, "stop the cluster and remove everything it left")
    add("status", _status, "tell what runs; exit code 0 if everything does")
    add("load", _load, "import an OCI archive, for pods to use").add_argument("archive", type=Path)
    add("env", _env, "print what a shell needs to use the cluster")
    run = add("run", _run, "run a command with the cluster; one that was started for it is taken down after it")
    run.add_argument("words", nargs="+", metavar="-- COMMAND")
    add("packages", _packages, "install the Debian packages that tests and cluster need, or name them")
    tools = add("tools", _tools, "build tools if needed and print where they are")
    tools.add_argument("names", nargs="*", metavar="NAME", help="default: what the integration tests need")
    return parser


def _up(_: argparse.Namespace) -> int:
    settings = cluster.up()
    print(f"up: export KUBECONFIG={settings.kubeconfig}")
    return 0


def _down(_: argparse.Namespace) -> int:
    cluster.down()
    return 0


def _status(_: argparse.Namespace) -> int:
    return 0 if status.show(cluster.running()) else 1


def _load(arguments: argparse.Namespace) -> int:
    print(containers.load(cluster.running(), arguments.archive), end="")
    return 0


def _env(_: argparse.Namespace) -> int:
    for name, value in cluster.running().environment().items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _run(arguments: argparse.Namespace) -> int:
    return running.run(arguments.words)


def _packages(_: argparse.Namespace) -> int:
    debian.ensure(for_tests=True)
    return 0


def _tools(arguments: argparse.Namespace) -> int:
    for path in toolchain.ensure(arguments.names or toolchain.INTEGRATION).values():
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
