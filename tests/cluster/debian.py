"""Programs of the distribution: already installed, installed now, or listed in one error message."""

import contextlib
import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.cluster.errors import ClusterError

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
_PROGRAMS = {
    "blkid": "util-linux",
    "buildah": "buildah",
    "conntrack": "conntrack",
    "containerd": "containerd",
    "go": "golang-go",
    "ip": "iproute2",
    "iptables": "iptables",
    "losetup": "mount",
    "mkfs.ext4": "e2fsprogs",
    "mmdebstrap": "mmdebstrap",
    "modprobe": "kmod",
    "openssl": "openssl",
    "runc": "runc",
}
_FOR_TESTS = {"mkfs.xfs": "xfsprogs", "promtool": "prometheus"}
"""No cluster needs these."""
_FILES = {"containernetworking-plugins": ("/usr/lib/cni/bridge", "/opt/cni/bin/bridge")}
"""Files outside PATH: a package is installed if one of its patterns matches a file."""
_FILES_FOR_TESTS = {"postgresql": ("/usr/lib/postgresql/*/bin/initdb",)}
_POLICY = Path("/usr/sbin/policy-rc.d")


def ensure(*, for_tests: bool = False) -> None:
    """Make sure that every program is there, by apt where that can be. Raises ClusterError."""
    programs = _PROGRAMS | (_FOR_TESTS if for_tests else {})
    files = _FILES | (_FILES_FOR_TESTS if for_tests else {})
    # A shell of a user, and some of root's, do not look where system programs are.
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), _SYSTEM])
    packages = _missing(programs, files)
    if not packages:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ClusterError(f"missing on this machine: {', '.join(packages)}. As root: {' '.join(command)}")
    print(f"packages: installing {', '.join(packages)}", file=sys.stderr, flush=True)
    with _no_services():
        done = subprocess.run(["apt-get", "update"], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            done = subprocess.run(command, env=quiet, capture_output=True, text=True, check=False)
    if done.returncode != 0 or _missing(programs, files):
        raise ClusterError(f"`{' '.join(command)}` did not help:\n{(done.stdout + done.stderr)[-2000:]}")


def _missing(programs: Mapping[str, str], files: Mapping[str, Sequence[str]]) -> list[str]:
    packages = {package for program, package in programs.items() if shutil.which(program) is None}
    packages |= {package for package, patterns in files.items() if not any(map(glob.glob, patterns))}
    return sorted(packages)


@contextlib.contextmanager
def _no_services() -> Iterator[None]:
    """Keep apt from starting the services of installed packages: the cluster runs its own."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    try:
        _POLICY.chmod(0o755)
        yield
    finally:
        _POLICY.unlink()
