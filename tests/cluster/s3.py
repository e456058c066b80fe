"""A real S3 server for tests: `with s3.running() as server:`."""

import contextlib
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import choices, toolchain
from tests.cluster.programs import Program
from tests.cluster.scopes import scope

_ADDRESS = "127.0.0.1"
REGION = "us-east-1"


@dataclass(frozen=True)
class S3Server:
    """A running S3 server without buckets."""

    url: str
    region: str
    access_key: str
    secret_key: str
    directory: Path
    """Where the objects are: a bucket is a directory, an object a file."""


@contextlib.contextmanager
def running(*options: str, keeps_versions: bool = False) -> Iterator[S3Server]:
    """Run an S3 server on a free port until the block ends, with credentials of its own.

    Args:
        options: of versitygw, besides ours.
        keeps_versions: whether buckets can have versioning.

    Raises ClusterError if it does not start.
    """
    binary = toolchain.tool("versitygw")
    [port] = choices.free_ports(1)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    with scope("s3-") as programs:
        objects = programs.directory / "objects"
        objects.mkdir()
        command = (str(binary), f"--port={_ADDRESS}:{port}", f"--region={REGION}", "--quiet", *options)
        versions = programs.directory / "versions"
        versions.mkdir()
        backend = ("posix", *((f"--versioning-dir={versions}",) if keeps_versions else ()), str(objects))
        # Not in the command line, where every user of this machine could read them.
        credentials = {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}
        programs.start(Program("versitygw", (*command, *backend), credentials))
        programs.wait("versitygw", lambda: _answers(port), 20)
        yield S3Server(f"http://{_ADDRESS}:{port}", REGION, access_key, secret_key, objects)


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((_ADDRESS, port)) == 0
