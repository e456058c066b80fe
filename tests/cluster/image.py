"""Build our image from the Dockerfile without Docker and without a registry: `python -m tests.cluster.image`.

A base image comes from this machine's own package manager by mmdebstrap, the image itself from buildah in a chroot.
Everything stays in one directory of the user's cache:

    ${XDG_CACHE_HOME:-~/.cache}/cinderblock/images/
      storage-<driver>/   buildah's images and cached steps
      layout/             the built image as an OCI layout, whose blobs are written once
      <key>.tar           OCI archive of what is in the working tree; the key is a hash of everything that goes in
      build.log           what the tools said in the last build

How this machine reaches package registries (index, certificates, proxies) is handed to the build as secrets and
build-time environment, and is not in the image. Debian packages needed: see PACKAGES.
"""

from __future__ import annotations

import configparser
import hashlib
import io
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.cluster import caching, debian
from tests.cluster.errors import ClusterError

PACKAGES = ("mmdebstrap", "buildah")
"""Debian packages that a build needs, each with a program of its name."""
IMAGE_NAME = "localhost/cinderblock:test"
"""Name of the image in the archive, and so in containerd after an import."""
SYSTEM_PIP_CONFIGURATION = Path("/etc/pip.conf")

ROOT = Path(__file__).resolve().parents[2]
_INGREDIENTS = (
    "Dockerfile",
    ".dockerignore",
    "LICENSE",
    "README.md",
    "pyproject.toml",
    "uv.lock",
    "uv.requirements.txt",
    "operator",
)
_BASE_PACKAGES = ("python3", "ca-certificates")
_BUILD_PACKAGES = (*_BASE_PACKAGES, "python3-pip")
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/info/*", "/usr/share/locale/*", "/usr/share/man/*")
_ARCHIVES_KEPT = 3
_IMAGES_KEPT = 400
"""Cached steps; a build of changed code adds about ten of a few kilobytes, apart from the code itself."""


def build() -> Path:
    """Build IMAGE_NAME from the working tree, unless that has been done, and return the path of its OCI archive.

    Safe to call from several processes at once. Raises ClusterError.
    """
    cache = caching.directory("images")
    with caching.locked(cache / "lock"):
        archive = cache / f"{_image_key()}.tar"
        if archive.exists():
            archive.touch()
        else:
            _build_archive(cache, archive)
        return archive


def _build_archive(cache: Path, archive: Path) -> None:
    (cache / "build.log").write_bytes(b"")
    buildah = _Buildah(cache)
    base, builder = _ensure_bases(buildah)
    with tempfile.TemporaryDirectory(prefix="cinderblock-build-") as scratch:
        secrets = package_client_secrets(Path(scratch), os.environ)
        buildah.run(
            "build", "--isolation=chroot", "--layers", "--timestamp=0", "--pull=never", *secrets,
            "--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"BUILD_IMAGE={builder}",
            "--tag", IMAGE_NAME, str(ROOT),
        )  # fmt: skip
    buildah.run("push", "--quiet", IMAGE_NAME, f"oci:{cache / 'layout'}:{IMAGE_NAME}")
    _write_archive(cache / "layout", archive)
    _forget_old(cache, buildah)


class _Buildah:
    """The buildah program with its own storage."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        if any(shutil.which(package) is None for package in PACKAGES):
            debian.ensure()
        self._storage = self._storage_options("overlay")
        if subprocess.run(["buildah", *self._storage, "info"], capture_output=True, check=False).returncode != 0:
            self._storage = self._storage_options("vfs")

    def _storage_options(self, driver: str) -> list[str]:
        root = self.cache / f"storage-{driver}"
        return ["--root", str(root), "--runroot", str(root / "run"), "--storage-driver", driver]

    def run(self, *arguments: str) -> str:
        """Run one buildah command and return its standard output. Raises ClusterError."""
        return _run(["buildah", *self._storage, *arguments], self.cache / "build.log")

    def has(self, image: str) -> bool:
        """Return whether the storage contains an image with this name."""
        inspect = ["buildah", *self._storage, "inspect", "--type=image", image]
        return subprocess.run(inspect, capture_output=True, check=False).returncode == 0


def _ensure_bases(buildah: _Buildah) -> tuple[str, str]:
    """Return the names of the base image and of the base with pip. Build missing ones in parallel."""
    bases = {_base_name(packages): packages for packages in (_BASE_PACKAGES, _BUILD_PACKAGES)}
    missing = {name: packages for name, packages in bases.items() if not buildah.has(name)}
    with tempfile.TemporaryDirectory(prefix="cinderblock-base-", dir=buildah.cache) as scratch:
        tars = {name: Path(scratch, f"{number}.tar") for number, name in enumerate(missing)}
        _side_by_side([(missing[name], tar, buildah.cache / "build.log") for name, tar in tars.items()])
        for name, tar in tars.items():
            container = buildah.run("from", "scratch").strip()
            buildah.run("add", "--quiet", container, str(tar), "/")
            buildah.run("commit", "--quiet", "--rm", container, name)
    base, builder = bases
    return base, builder


def _side_by_side(calls: Sequence[tuple[Sequence[str], Path, Path]]) -> None:
    """Make several base file systems at once: most of the time is unpacking, on one core each."""
    errors: list[ClusterError] = []

    def bootstrap(packages: Sequence[str], tar: Path, log: Path) -> None:
        try:
            _bootstrap(packages, tar, log)
        except ClusterError as error:
            errors.append(error)

    threads = [threading.Thread(target=bootstrap, args=call) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _bootstrap(packages: Sequence[str], tar: Path, log: Path) -> None:
    """Make a minimal file system of this machine's own distribution, with the sources and access that apt has here."""
    command = ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"]
    command += [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    command += ["--dpkgopt=path-include=/usr/share/doc/*/copyright"]
    command += [f"--aptopt={option}" for option in _apt_access()]
    command += ['--setup-hook=mkdir -p "$1/etc/apt"; for f in /etc/apt/auth.conf*; do cp -a "$f" "$1/etc/apt/"; done']
    forget = (
        "apt/auth.conf",
        "apt/auth.conf.d/*",
        "apt/apt.conf.d/99mmdebstrap",
        "apt/sources.list*",
        "hostname",
        "resolv.conf",
    )
    command += ['--customize-hook=cd "$1/etc" && rm -rf ' + " ".join(forget)]
    _run([*command, _codename(), str(tar), *map(str, _apt_sources())], log)


def _apt_access() -> list[str]:
    """Return how apt reaches its sources on this machine: proxies, certificates, clock checks."""
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, check=True, text=True).stdout
    return [line for line in dump.splitlines() if re.match(r'Acquire::(https?|Retries|Check-)\S* "[^"]', line)]


def _apt_sources() -> list[Path]:
    """Return the distribution's own source lists, without other vendors' packages.

    None stands for mmdebstrap's default.
    """
    names = ("sources.list", "sources.list.d/debian.sources", "sources.list.d/ubuntu.sources")
    active = re.compile(rf"^(deb |Suites:).*\b{_codename()}\b", re.MULTILINE)
    paths = [Path("/etc/apt", name) for name in names]
    return [path for path in paths if path.is_file() and active.search(path.read_text())]


def _codename() -> str:
    return platform.freedesktop_os_release()["VERSION_CODENAME"]


def _base_name(packages: Sequence[str]) -> str:
    parts = (_codename(), platform.machine(), *packages, *_LEFT_OUT)
    return f"localhost/cinderblock-base:{hashlib.sha256(repr(parts).encode()).hexdigest()[:16]}"


def _image_key() -> str:
    """Return a hash of everything that a build reads, including names."""
    digest = hashlib.sha256("\0".join((IMAGE_NAME, _base_name(_BASE_PACKAGES), _base_name(_BUILD_PACKAGES))).encode())
    for path in _ingredient_files():
        content = path.read_bytes()
        digest.update(f"\0{path.relative_to(ROOT)}\0{os.access(path, os.X_OK)}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _ingredient_files() -> Iterator[Path]:
    for name in _INGREDIENTS:
        path = ROOT / name
        below = sorted(p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
        yield from below if path.is_dir() else [path]


def package_client_secrets(scratch: Path, environment: Mapping[str, str]) -> list[str]:
    """Return options that give the build this machine's access to package indexes, or none without a configuration."""
    settings = _index_settings(environment)
    options = []
    bundle = _certificates(environment)
    if bundle:
        options += ["--secret", f"id=package_ca,src={bundle}"]
        trusted_by = ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")
        settings.update(dict.fromkeys(trusted_by, "/run/secrets/package_ca"))
    if settings:
        path = scratch / "package_env"
        path.touch(mode=0o600)
        path.write_text("".join(f"{name}={shlex.quote(value)}\n" for name, value in sorted(settings.items())))
        options += ["--secret", f"id=package_env,src={path}"]
    return options


def _index_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return variables of pip and uv that name indexes. If only pip is configured, uv gets the same."""
    pip = _pip_configuration(environment)
    same = {"UV_DEFAULT_INDEX": "index-url", "UV_INDEX": "extra-index-url", "UV_INSECURE_HOST": "trusted-host"}
    found = {f"PIP_{option.replace('-', '_').upper()}": pip.get(option, "") for option in same.values()}
    found["PIP_DEFAULT_TIMEOUT"] = environment.get("PIP_DEFAULT_TIMEOUT", "")
    found["UV_HTTP_TIMEOUT"] = environment.get("UV_HTTP_TIMEOUT", found["PIP_DEFAULT_TIMEOUT"])
    found |= {name: environment.get(name, pip.get(option, "")) for name, option in same.items()}
    found |= {name: environment.get(name, "") for name in ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL")}
    if found["UV_INDEX_URL"] and "UV_DEFAULT_INDEX" not in environment:
        found["UV_DEFAULT_INDEX"] = ""
    return {name: " ".join(value.split()) for name, value in found.items() if value}


def _certificates(environment: Mapping[str, str]) -> str | None:
    """Return the PEM bundle that package clients trust on this machine, if one is configured."""
    named = [environment.get(name) for name in ("SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE")]
    named.append(_pip_configuration(environment).get("cert"))
    return next((path for path in named if path and Path(path).is_file()), None)


def _pip_configuration(environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's global options in its own order of precedence (pip: Configuration, "Location")."""
    home = Path.home()
    config_home = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [SYSTEM_PIP_CONFIGURATION, home / ".pip/pip.conf", config_home / "pip/pip.conf"]
    files += [Path(environment["PIP_CONFIG_FILE"])] if environment.get("PIP_CONFIG_FILE") else []
    parser = configparser.RawConfigParser()
    parser.read(files)
    options = dict(parser.items("global")) if parser.has_section("global") else {}
    for option in ("index-url", "extra-index-url", "trusted-host"):
        value = environment.get(f"PIP_{option.replace('-', '_').upper()}")
        options |= {option: value} if value else {}
    return options


def _write_archive(layout: Path, archive: Path) -> None:
    """Pack the layout's newest image, and drop blobs of older ones.

    The archive is renamed into place, so it is whole or absent.
    """
    index = json.loads((layout / "index.json").read_text())
    [image] = [entry for entry in index["manifests"] if entry.get("annotations", {}).get(_REF_NAME) == IMAGE_NAME]
    # containerd takes an image's full name from this annotation (containerd: images.AnnotationImageName).
    image["annotations"]["io.containerd.image.name"] = IMAGE_NAME
    index["manifests"] = [image]
    blobs = layout / "blobs" / "sha256"
    needed = _blobs_of(blobs, image)
    for stale in {path.name for path in blobs.iterdir()} - set(needed):
        (blobs / stale).unlink()
    partial = archive.with_suffix(".partial")
    with tarfile.open(partial, "w") as tar:
        _add(tar, "oci-layout", (layout / "oci-layout").read_bytes())
        _add(tar, "index.json", json.dumps(index).encode())
        for name in needed:
            tar.add(blobs / name, f"blobs/sha256/{name}", filter=_without_owner)
    (layout / "index.json").write_text(json.dumps(index))
    partial.rename(archive)


_REF_NAME = "org.opencontainers.image.ref.name"


def _blobs_of(blobs: Path, image: Mapping[str, str]) -> list[str]:
    """Return the names of the blobs of an image: manifest, configuration, layers."""
    manifest_name = image["digest"].removeprefix("sha256:")
    manifest = json.loads((blobs / manifest_name).read_text())
    parts = [manifest["config"], *manifest["layers"]]
    return list(dict.fromkeys([manifest_name, *(part["digest"].removeprefix("sha256:") for part in parts)]))


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _without_owner(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uid = entry.gid = entry.mtime = 0
    entry.uname = entry.gname = ""
    return entry


def _forget_old(cache: Path, buildah: _Buildah) -> None:
    """Limit the cache to a few archives and a number of cached steps."""
    archives = sorted(cache.glob("*.tar"), key=lambda path: path.stat().st_mtime, reverse=True)
    for archive in archives[_ARCHIVES_KEPT:]:
        archive.unlink()
    if len(buildah.run("images", "--all", "--quiet").split()) > _IMAGES_KEPT:
        buildah.run("rmi", "--prune", "--force")


def _run(command: Sequence[str], log: Path) -> str:
    """Run a command, append what it says to the log, and return its standard output. Raises ClusterError."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    with log.open("a") as file:
        file.write(done.stdout)
    if done.returncode != 0:
        last = "\n".join(done.stdout.splitlines()[-20:])
        raise ClusterError(f"{command[0]} failed with exit code {done.returncode}; all of it in {log}\n{last}")
    return done.stdout


if __name__ == "__main__":
    try:
        print(build())
    except ClusterError as error:
        sys.exit(str(error))
