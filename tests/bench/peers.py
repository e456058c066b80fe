"""The peers of this program. Each is built or installed when it is first needed."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from tests.bench.contenders import Contender, home
from tests.bench.running import Processors, Usage, aside, run
from tests.bench.server import BenchServer
from tests.cluster import golang, toolchain
from tests.openstack import environments

RESTIC: Final = "restic"
KOPIA: Final = "kopia"
CINDER: Final = "cinder"


class Restic:
    """restic with default settings."""

    name = RESTIC
    uncompared: Sequence[str] = ()

    def __init__(self, server: BenchServer, place: str, scratch: str, processors: Processors) -> None:
        kept = home(scratch, place)
        self.container = server.container(place)
        self._environment = {
            **server.environment,
            "RESTIC_PASSWORD": secrets.token_hex(16),
            "RESTIC_CACHE_DIR": os.path.join(kept, "cache"),
        }
        self._processors = processors
        repository = f"s3:{server.url}/{self.container}"
        self._program = [str(toolchain.tool(RESTIC)), "-o", "s3.bucket-lookup=path", "-r", repository]
        os.mkdir(kept)
        self._run("init")

    def backup(self, path: str, *, first: bool) -> Usage:
        """See Contender. restic finds by itself what it has of the path."""
        return self._run("backup", path)

    def restore(self, path: str, target: str) -> Usage:
        """See Contender."""
        return self._run("restore", "latest", "--path", path, "--target", target)

    def restored(self, path: str, target: str) -> str:
        """See Contender."""
        return target + path

    def _run(self, *arguments: str) -> Usage:
        return run([*self._program, *arguments], self._environment, self._processors)


class Kopia:
    """kopia with default settings, except that it does not check the network for updates."""

    name = KOPIA
    # A restored directory has the mtime of the newest file in it.
    uncompared = ("--ignore-mtimes",)

    def __init__(self, server: BenchServer, place: str, scratch: str, processors: Processors) -> None:
        kept = home(scratch, place)
        self.container = server.new_container(place)
        self._environment = {
            **server.environment,
            "KOPIA_PASSWORD": secrets.token_hex(16),
            "KOPIA_CONFIG_PATH": os.path.join(kept, "repository.config"),
            "KOPIA_CACHE_DIRECTORY": os.path.join(kept, "cache"),
            "KOPIA_LOG_DIR": os.path.join(kept, "log"),
            "KOPIA_USE_KEYRING": "false",
            "KOPIA_CHECK_FOR_UPDATES": "false",
        }
        self._processors = processors
        self._program = str(toolchain.tool(KOPIA))
        self._newest = ""
        os.mkdir(kept)
        place_on_server = ["--endpoint", server.url.removeprefix("http://"), "--disable-tls", "--region", server.region]
        self._run("repository", "create", "s3", "--bucket", self.container, *place_on_server)

    def backup(self, path: str, *, first: bool) -> Usage:
        """See Contender. kopia finds by itself what it has of the path."""
        used = self._run("snapshot", "create", "--json", path)
        self._newest = json.loads(used.output)["id"]
        return used

    def restore(self, path: str, target: str) -> Usage:
        """See Contender."""
        return self._run("snapshot", "restore", self._newest, self.restored(path, target))

    def restored(self, path: str, target: str) -> str:
        """See Contender."""
        return os.path.join(target, os.path.basename(path))

    def _run(self, *arguments: str) -> Usage:
        return run([self._program, *arguments], self._environment, self._processors)


class Cinder:
    """The S3 backup driver of OpenStack Cinder with default settings, on an image in the place of a device.

    Cinder's backup service is a process that runs for long; here one is started for each step. So time is counted
    from the call of the driver to its return, without the start of the process (2 s), and memory is of the process.
    """

    name = CINDER
    uncompared: Sequence[str] = ()

    def __init__(self, server: BenchServer, place: str, scratch: str, processors: Processors) -> None:
        self.container = server.container(place)
        self._home = home(scratch, place)
        self._environment = server.environment
        self._processors = processors
        os.mkdir(self._home)
        self._run("prepare", server.url, self.container)

    def backup(self, path: str, *, first: bool) -> Usage:
        """See Contender."""
        return self._driven("backup", path, "full" if first else "incremental")

    def restore(self, path: str, target: str) -> Usage:
        """See Contender."""
        return self._driven("restore", self.restored(path, target), str(os.path.getsize(path)))

    def restored(self, path: str, target: str) -> str:
        """See Contender."""
        return os.path.join(target, os.path.basename(path))

    def _driven(self, *arguments: str) -> Usage:
        used = self._run(*arguments)
        took = json.loads(used.output.splitlines()[-1])
        return replace(used, wall=took["wall"], cpu=took["cpu"], others=used.others * took["wall"] / used.wall)

    def _run(self, what: str, *arguments: str) -> Usage:
        python = environments.programs(CINDER) / "python"
        program = str(Path(__file__).with_name("cinder_driver.py"))
        command = [str(python), "-W", "ignore", program, what, self._home, *arguments]
        return run(command, self._environment, self._processors)


@dataclass(frozen=True)
class Peer:
    """One of them.

    Attributes:
        make: a repository of its own, for one round.
        version: of the program.
        manner: what it does by default with what it stores.
        kinds: of volumes that it can back up.
    """

    make: Callable[[BenchServer, str, str, Processors], Contender]
    version: Callable[[], str]
    manner: str
    kinds: tuple[str, ...] = ("image", "tree")


def _locked_cinder() -> str:
    found = re.search(r"^cinder==(\S+)", (environments.LOCKS / "cinder.txt").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


PEERS: Final[Mapping[str, Peer]] = {
    RESTIC: Peer(
        Restic,
        lambda: golang.pinned(RESTIC, "github.com/restic/restic"),
        "compresses (zstd) and encrypts (AES-256-CTR, Poly1305-AES)",
    ),
    KOPIA: Peer(
        Kopia,
        lambda: golang.pinned(KOPIA, "github.com/kopia/kopia"),
        "does not compress, encrypts (AES-256-GCM), and keeps what it has fetched in a cache on the machine's disk; "
        "mtimes of directories do not come back, and are not compared",
    ),
    CINDER: Peer(
        Cinder,
        _locked_cinder,
        "is the backup service's S3 driver: compresses (zlib), does not encrypt; the start of its process left out",
        kinds=("image",),
    ),
}


def provide(names: list[str]) -> None:
    """Build or install what these peers need, where that has not been done. Raises BenchError or ClusterError."""
    toolchain.ensure([name for name in names if name in toolchain.NAMES])
    if CINDER in names:
        aside("tests.openstack.environments", CINDER)
