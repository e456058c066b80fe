"""Settings of this machine that a cluster changes: saved before the first start, restored at the end."""

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

CNI_RESULTS = Path("/var/lib/cni/results")
"""Where containerd remembers what it attached to networks."""
LOG_LINKS = Path("/var/log/containers")
"""Where the kubelet links to the logs of containers."""
_SHIM_SOCKETS = Path("/run/containerd/s")
"""Where shims of containerd listen."""
_FOLDERS = (CNI_RESULTS, CNI_RESULTS.parent, LOG_LINKS, _SHIM_SOCKETS, _SHIM_SOCKETS.parent)
_SYSCTLS = (
    "net/ipv4/ip_forward",
    "net/bridge/bridge-nf-call-iptables",
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)
_ROOT = Path("/proc/sys")


def sysctls() -> dict[str, str]:
    """Return the present values of the kernel settings that a kubelet, a bridge or kube-proxy changes."""
    return {name: (_ROOT / name).read_text().strip() for name in _SYSCTLS if (_ROOT / name).exists()}


def set_sysctl(name: str, value: str) -> None:
    """Change one kernel setting."""
    (_ROOT / name).write_text(value)


def restore_sysctls(before: Mapping[str, str]) -> None:
    """Put back what differs."""
    now = sysctls()
    for name, value in before.items():
        if now.get(name) != value:
            set_sysctl(name, value)


def absent_folders() -> list[str]:
    """Return the folders outside of the cluster's that are not there, and will be."""
    return [str(folder) for folder in _FOLDERS if not folder.exists()]


def remove_folders(absent_before: Iterable[str]) -> None:
    """Remove the folders that were not there, if nobody else uses them by now."""
    for folder in absent_before:
        with contextlib.suppress(OSError):
            Path(folder).rmdir()
