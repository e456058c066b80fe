"""The capabilities that a caller may request of a volume, and the meaning of its access modes."""

from collections.abc import Iterable
from typing import Any

from tests.cluster.csi import filesystems, messages
from tests.cluster.csi.refusals import RefusalError


def check(capability: Any) -> None:
    """Refuse a way of using a volume that this driver does not know."""
    if capability.WhichOneof("access_type") is None:
        raise RefusalError("INVALID_ARGUMENT", "the capability names neither block nor mount")
    if capability.mount.fs_type not in ("", filesystems.KIND):
        raise RefusalError("INVALID_ARGUMENT", f"file system {capability.mount.fs_type} is not supported")


def check_all(capabilities: Iterable[Any]) -> None:
    """Refuse a request with one capability that this driver does not know."""
    for capability in capabilities:
        check(capability)


def is_block(capability: Any) -> bool:
    """Tell whether the volume is wanted as a device."""
    return bool(capability.WhichOneof("access_type") == "block")


def is_reader_only(capability: Any) -> bool:
    """Tell whether nobody may write. The kubelet says so only by the mode: a ReadOnlyMany claim is not `readonly`."""
    modes = messages.VolumeCapability.AccessMode
    return capability.access_mode.mode in (modes.SINGLE_NODE_READER_ONLY, modes.MULTI_NODE_READER_ONLY)
