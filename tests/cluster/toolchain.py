"""The programs of the cluster, built from pinned Go modules into a cache. `tool("etcd")` is the path of one.

Every folder below `tools/` is a Go module whose go.mod and go.sum are the pins. Each program is built alone, on first
use. A test that needs an API server does not wait for a kubelet, and only the bench builds the peers.
"""

import hashlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import caching, golang
from tests.cluster.errors import ClusterError

_KUBERNETES = "k8s.io/kubernetes"
_REPORT_SECONDS = 15
_KEPT = 2
"""Builds of one folder that stay in the cache: two branches can take turns without building."""


@dataclass(frozen=True)
class Module:
    """A folder of pins, and the programs built from it."""

    name: str
    packages: Mapping[str, str]
    """Name of the program -> path of its package."""

    @property
    def folder(self) -> Path:
        """Return the folder of the pins."""
        return golang.TOOLS / self.name

    def bin(self) -> Path:
        """Return where this module's programs are kept, by what they are built from."""
        digest = hashlib.sha256(repr((platform.machine(), self.flags())).encode())
        for path in sorted(self.folder.iterdir()):
            digest.update(f"\0{path.name}\0".encode() + path.read_bytes())
        return caching.directory("tools") / f"{self.name}-{digest.hexdigest()[:16]}" / "bin"

    def flags(self) -> list[str]:
        """Return the arguments of `go build` for this module."""
        linker = "-s -w"
        if self.name == "kubernetes":
            version = golang.pinned(self.name, _KUBERNETES)
            major, minor, _ = version.removeprefix("v").split(".", 2)
            # Without these the node says that it runs v0.0.0.
            stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
            linker += "".join(f" -X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items())
        return ["-trimpath", "-buildvcs=false", f"-ldflags={linker}"]


def _commands(prefix: str, *names: str) -> dict[str, str]:
    return {name: f"{prefix}/cmd/{name}" for name in names}


MODULES = (
    Module("etcd", {"etcd": "go.etcd.io/etcd/server/v3"}),
    Module(
        "kubernetes",
        _commands(_KUBERNETES, "kube-apiserver", "kube-controller-manager", "kube-scheduler")
        | _commands(_KUBERNETES, "kubelet", "kube-proxy", "kubectl"),
    ),
    Module("coredns", {"coredns": "github.com/coredns/coredns"}),
    Module(
        "csi-sidecars",
        _commands("github.com/kubernetes-csi/external-provisioner/v6", "csi-provisioner")
        | _commands("github.com/kubernetes-csi/external-snapshotter/v8", "csi-snapshotter", "snapshot-controller")
        | _commands("github.com/kubernetes-csi/external-snapshot-metadata", "csi-snapshot-metadata"),
    ),
    Module("csi-sanity", _commands("github.com/kubernetes-csi/csi-test/v5", "csi-sanity")),
    Module("versitygw", _commands("github.com/versity/versitygw", "versitygw")),
    Module("helm", _commands("helm.sh/helm/v4", "helm")),
    Module("pause", {"pause": "cinderblock.test/tools/pause"}),
    # The peers of the bench, which only `make bench` builds.
    Module("restic", _commands("github.com/restic/restic", "restic")),
    Module("kopia", {"kopia": "github.com/kopia/kopia"}),
)

NAMES = tuple(name for module in MODULES for name in module.packages)
"""Every program that can be built."""
INTEGRATION = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl", "versitygw", "helm")
"""Programs that the integration tests use. They are built before the tests: a build can take longer than a test may."""

_allowed = NAMES


def allow_only(names: tuple[str, ...]) -> None:
    """Refuse all other programs in this process, even if they are built: on a new machine, they would not be."""
    global _allowed  # noqa: PLW0603
    _allowed = names


def tool(name: str) -> Path:
    """Return the path of a program, building it if that has not been done. Raises ClusterError."""
    return ensure([name])[name]


def is_built(name: str) -> bool:
    """Return whether a program is available without building it."""
    return any((module.bin() / name).exists() for module in MODULES if name in module.packages)


def ensure(names: Iterable[str]) -> dict[str, Path]:
    """Return the paths of programs, building those that are missing. Raises ClusterError."""
    wanted = list(dict.fromkeys(names))
    unknown = [name for name in wanted if name not in NAMES]
    if unknown:
        raise ClusterError(f"no such tool: {', '.join(unknown)}; there are {', '.join(NAMES)}")
    refused = [name for name in wanted if name not in _allowed]
    if refused:
        raise ClusterError(f"nobody has built {', '.join(refused)} before these tests: add it to toolchain.INTEGRATION")
    modules = [(module, [name for name in wanted if name in module.packages]) for module in MODULES]
    paths = {name: module.bin() / name for module, names in modules for name in names}
    jobs = [(module, missing) for module, names in modules if (missing := [n for n in names if not paths[n].exists()])]
    for number, (module, missing) in enumerate(jobs, start=1):
        _build(module, missing, f"{number} of {len(jobs)}")
    return paths


def _build(module: Module, names: list[str], position: str) -> None:
    kept = module.bin()
    with caching.locked(caching.directory("tools") / f"{module.name}.lock"):
        missing = [name for name in names if not (kept / name).exists()]
        if missing:
            kept.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="build-", dir=kept.parent) as scratch:
                _compile(module, missing, Path(scratch), position)
                for name in missing:
                    Path(scratch, _default_name(module.packages[name])).rename(kept / name)
            _forget_old(module, kept.parent)


def _compile(module: Module, names: list[str], output: Path, position: str) -> None:
    what = f"tools: {module.name} ({position}: {', '.join(names)})"
    packages = [module.packages[name] for name in names]
    command = [str(golang.go()), "build", *module.flags(), "-o", f"{output}/", *packages]
    log = caching.directory("tools") / f"{module.name}.log"
    began = time.monotonic()
    _say(f"{what}: building")
    with (
        log.open("wb") as file,
        subprocess.Popen(
            command, cwd=module.folder, env=golang.environment(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
        ) as build,
    ):
        for _ in _while_running(build):
            _say(f"{what}: {time.monotonic() - began:.0f} s so far")
    if build.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ClusterError(f"{what}: go build failed in {module.folder}; all of it in {log}\n{last}")
    _say(f"{what}: built in {time.monotonic() - began:.0f} s")


def _while_running(build: subprocess.Popen[bytes]) -> Iterator[None]:
    """Yield whenever a progress message about a running build is due."""
    while True:
        try:
            build.wait(timeout=_REPORT_SECONDS)
        except subprocess.TimeoutExpired:
            yield
        except BaseException:
            build.kill()
            raise
        else:
            return


def _default_name(package: str) -> str:
    """Name that `go build` gives the program of a package: the path's last element that is not a version."""
    *_, before, last = package.split("/")
    return before if last[0] == "v" and last[1:].isdigit() else last


def _forget_old(module: Module, current: Path) -> None:
    """Drop old builds of other pins. Running programs are not affected."""
    builds = sorted(current.parent.glob(f"{module.name}-*"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in [path for path in builds if path.is_dir() and path != current][_KEPT - 1 :]:
        for path in (*old.glob("bin/*"), *old.glob("bin"), old):
            path.rmdir() if path.is_dir() else path.unlink()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
