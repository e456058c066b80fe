"""The Node service, which the kubelet calls to mount a volume into a pod.

A Filesystem volume is mounted once, at its staging path, and bind-mounted from there. A Block volume is the node of its
loop device, bind-mounted over an empty file. All state is in the kernel, so a restarted driver finds its volumes.
"""

import os
import stat
import time
from typing import Any

from tests.cluster.csi import capabilities, filesystems, loops, messages, mounts
from tests.cluster.csi.images import ImageStore
from tests.cluster.csi.quiescing import flush
from tests.cluster.csi.refusals import RefusalError, require

LEAVES_WITHIN = 2.0
"""Seconds that a detached device may linger before the call fails. A process that lists or probes the machine's devices
opens each of them for a moment, and tests run in parallel."""


class Node:
    """The driver on its one node."""

    def __init__(self, volumes: ImageStore, node_id: str, block_mode: int | None) -> None:
        """Set up the service.

        `block_mode` is the mode of published device nodes: a container's copy keeps the mode of the host's.
        """
        self._volumes = volumes
        self._node_id = node_id
        self._block_mode = block_mode

    def node_get_info(self, _request: Any) -> Any:
        return messages.NodeGetInfoResponse(node_id=self._node_id)

    def node_get_capabilities(self, _request: Any) -> Any:
        capability = messages.NodeServiceCapability
        kind = capability.RPC(type=capability.RPC.STAGE_UNSTAGE_VOLUME)
        return messages.NodeGetCapabilitiesResponse(capabilities=[capability(rpc=kind)])

    def node_stage_volume(self, request: Any) -> Any:
        require(request, "volume_id", "staging_target_path", "volume_capability")
        capabilities.check(request.volume_capability)
        image = self._volumes.get(request.volume_id).path
        if not capabilities.is_block(request.volume_capability) and not mounts.is_mounted(request.staging_target_path):
            self._mount(image, request)
        return messages.NodeStageVolumeResponse()

    def node_unstage_volume(self, request: Any) -> Any:
        require(request, "volume_id", "staging_target_path")
        image = self._volumes.path(request.volume_id)
        mounts.unmount(request.staging_target_path)
        for loop in loops.attached(image):
            if not loop.leaving:
                loops.detach(loop.path)
        _refuse_leaving(image)
        return messages.NodeUnstageVolumeResponse()

    def node_publish_volume(self, request: Any) -> Any:
        require(request, "volume_id", "target_path", "staging_target_path", "volume_capability")
        capabilities.check(request.volume_capability)
        image = self._volumes.get(request.volume_id).path
        if not mounts.is_mounted(request.target_path):
            os.makedirs(os.path.dirname(request.target_path), exist_ok=True)
            if capabilities.is_block(request.volume_capability):
                self._publish_device(image, request)
            else:
                self._publish_directory(request)
        return messages.NodePublishVolumeResponse()

    def node_unpublish_volume(self, request: Any) -> Any:
        require(request, "volume_id", "target_path")
        own_loop = self._read_only_loop(request.volume_id, request.target_path)
        mounts.unmount(request.target_path)
        if own_loop is not None:
            loops.detach(own_loop.path)
        if os.path.isdir(request.target_path):
            os.rmdir(request.target_path)
        elif os.path.exists(request.target_path):
            os.unlink(request.target_path)
        return messages.NodeUnpublishVolumeResponse()

    def _mount(self, image: str, request: Any) -> None:
        """Mount read-only where nobody may write; the device stays writable, or a journal could not be replayed."""
        _refuse_leaving(image)
        loop = _shared_loop(image)
        if loop is None:
            filesystems.prepare(image)
            loop = loops.attach(image)
        options = list(request.volume_capability.mount.mount_flags)
        if capabilities.is_reader_only(request.volume_capability):
            options.append("ro")
        mounts.mount_file_system(loop.path, request.staging_target_path, filesystems.KIND, options)

    def _publish_directory(self, request: Any) -> None:
        if not mounts.is_mounted(request.staging_target_path):
            raise RefusalError("FAILED_PRECONDITION", f"{request.volume_id} is not staged")
        os.makedirs(request.target_path, exist_ok=True)
        mounts.bind(request.staging_target_path, request.target_path, read_only=_wants_read_only(request))

    def _publish_device(self, image: str, request: Any) -> None:
        """Give a reader a read-only device of its own: a read-only mount of a device node stops no writer."""
        _refuse_leaving(image)
        if _wants_read_only(request):
            flush(image)
            loop = loops.attach(image, read_only=True)
        else:
            loop = _shared_loop(image) or loops.attach(image)
        if self._block_mode is not None:
            os.chmod(loop.path, self._block_mode)
        with open(request.target_path, "ab"):
            pass
        mounts.bind(loop.path, request.target_path, read_only=False)

    def _read_only_loop(self, volume_id: str, target: str) -> loops.Loop | None:
        """Return the device that was made for this one target."""
        if not os.path.exists(target) or not stat.S_ISBLK(os.stat(target).st_mode):
            return None
        number = os.stat(target).st_rdev
        attached = loops.attached(self._volumes.path(volume_id))
        return next((loop for loop in attached if loop.read_only and os.stat(loop.path).st_rdev == number), None)


def _wants_read_only(request: Any) -> bool:
    return request.readonly or capabilities.is_reader_only(request.volume_capability)


def _shared_loop(image: str) -> loops.Loop | None:
    return next((loop for loop in loops.attached(image) if not loop.read_only), None)


def _refuse_leaving(image: str) -> None:
    """Make the kubelet come again while an old device is open: a second one over the same image would corrupt it."""
    deadline = time.monotonic() + LEAVES_WITHIN
    while leaving := [loop.path for loop in loops.attached(image) if loop.leaving]:
        if time.monotonic() > deadline:
            raise RefusalError("FAILED_PRECONDITION", f"still open: {', '.join(leaving)}")
        time.sleep(0.05)
