"""containerd with its own configuration, root, state and socket, separate from any other on this machine."""

import shutil
import subprocess
from pathlib import Path

from tests.cluster import files
from tests.cluster.errors import ClusterError
from tests.cluster.programs import Program
from tests.cluster.settings import Settings

PAUSE_IMAGE = "localhost/cinderblock-pause:test"
_NAMESPACE = "k8s.io"
_CONFIGURATION = """\
version = 2
root = "{directory}/containerd"
state = "{directory}/containerd-run"
oom_score = 0

[grpc]
  address = "{socket}"

[plugins."io.containerd.internal.v1.opt"]
  path = "{directory}/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  stream_server_address = "127.0.0.1"
  # Without CAP_SYS_RESOURCE a container's score cannot be lowered, and runc says something incomprehensible instead.
  restrict_oom_score_adj = true
  # Else pods' network namespaces are mounted among everybody's in /run/netns.
  netns_mounts_under_state_dir = true

  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{plugins}"
    conf_dir = "{directory}/cni"

  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "{snapshotter}"
    default_runtime_name = "runc"

    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"

      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        Root = "{directory}/runc"
"""


def program(settings: Settings) -> Program:
    """Describe containerd, writing its configuration."""
    text = _CONFIGURATION.format(
        directory=settings.directory,
        socket=settings.containerd_socket,
        pause=PAUSE_IMAGE,
        plugins=network_plugins(),
        snapshotter=_snapshotter(settings.directory),
    )
    path = files.write(settings.directory / "conf" / "containerd.toml", text)
    return Program("containerd", (_found("containerd"), f"--config={path}", "--log-level=info"))


def network_plugins() -> Path:
    """Return where CNI plugins are installed. Raises ClusterError."""
    for folder in (Path("/usr/lib/cni"), Path("/opt/cni/bin")):
        if (folder / "bridge").exists():
            return folder
    raise ClusterError("no CNI plugins in /usr/lib/cni or /opt/cni/bin: apt-get install containernetworking-plugins")


def is_serving(settings: Settings) -> bool:
    """Tell whether containerd answers."""
    return settings.containerd_socket.exists() and _ctr(settings, "version").returncode == 0


def image_names(settings: Settings) -> set[str]:
    """Return the names of all images that pods can use."""
    return set(_checked(settings, "images", "ls", "-q").split())


def load(settings: Settings, archive: Path) -> str:
    """Import the images of an OCI archive and return what containerd said. Raises ClusterError."""
    if not archive.is_file():
        raise ClusterError(f"{archive} is not a file; give an OCI archive")
    return _checked(settings, "images", "import", str(archive))


def tag(settings: Settings, name: str, other: str) -> None:
    """Give an image another name, whichever image had that. Raises ClusterError."""
    _checked(settings, "images", "tag", "--force", name, other)


def _checked(settings: Settings, *arguments: str) -> str:
    done = _ctr(settings, *arguments)
    if done.returncode != 0:
        raise ClusterError(f"`ctr {' '.join(arguments)}` on {settings.containerd_socket}: {done.stderr.strip()}")
    return done.stdout


def _ctr(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [_found("ctr"), "--address", str(settings.containerd_socket), "--namespace", _NAMESPACE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def _found(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        raise ClusterError(f"{name} is not installed: apt-get install containerd")
    return path


def _snapshotter(directory: Path) -> str:
    """Choose a snapshotter.

    An overlay cannot be stacked on an overlay, which a container's own file system usually is.
    """
    kind = subprocess.run(
        ["stat", "--file-system", "--format=%T", directory], capture_output=True, text=True, check=True
    ).stdout.strip()
    return "native" if kind == "overlayfs" else "overlayfs"
