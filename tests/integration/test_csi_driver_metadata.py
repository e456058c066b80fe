"""The driver's changed-block metadata names exactly the blocks that changed, zeroed ones included."""

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.cluster.csi import instants, messages, quiescing
from tests.cluster.csi.images import ImageStore
from tests.cluster.csi.metadata import BLOCK_SIZE, SnapshotMetadata
from tests.cluster.csi.refusals import RefusalError

pytestmark = pytest.mark.integration

BLOCKS = 32


@pytest.fixture(params=[quiescing.copy, instants.copy], ids=["frozen", "unfrozen"])
def service(tmp_path: Any, request: pytest.FixtureRequest) -> SnapshotMetadata:
    """Snapshots `before` and `after` of one volume: 4 blocks of data, then one rewritten, one zeroed, one new."""
    volumes = ImageStore(str(tmp_path / "volumes"))
    snapshots = ImageStore(str(tmp_path / "snapshots"))
    volume = volumes.make_blank("volume", BLOCKS * BLOCK_SIZE)
    _write(volume.path, 2, os.urandom(4 * BLOCK_SIZE))
    cut = partial(snapshots.make_copy, original=volume, copy=request.param, size=volume.size)
    cut("before", source="volume")
    _write(volume.path, 3, os.urandom(512))
    _write(volume.path, 4, bytes(BLOCK_SIZE))
    _write(volume.path, 30, b"new")
    cut("after", source="volume")
    cut("stranger", source="other")
    return SnapshotMetadata(snapshots)


def _write(path: str, block: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(block * BLOCK_SIZE)
        file.write(data)


def _allocated(snapshot: str, offset: int = 0, limit: int = 0) -> Any:
    return messages.GetMetadataAllocatedRequest(snapshot_id=snapshot, starting_offset=offset, max_results=limit)


def _delta(base: str, target: str) -> Any:
    return messages.GetMetadataDeltaRequest(base_snapshot_id=base, target_snapshot_id=target)


def _blocks(answers: Any) -> list[list[int]]:
    return [[item.byte_offset // BLOCK_SIZE for item in answer.block_metadata] for answer in answers]


def test_allocated_blocks_are_those_with_data(service: SnapshotMetadata) -> None:
    assert _blocks(service.get_metadata_allocated(_allocated("before"))) == [[2, 3, 4, 5]]
    assert _blocks(service.get_metadata_allocated(_allocated("after"))) == [[2, 3, 5, 30]]


def test_delta_holds_rewritten_zeroed_and_new_blocks(service: SnapshotMetadata) -> None:
    assert _blocks(service.get_metadata_delta(_delta("before", "after"))) == [[3, 4, 30]]


def test_no_change_is_one_message_without_blocks(service: SnapshotMetadata) -> None:
    answers = list(service.get_metadata_delta(_delta("after", "after")))
    assert _blocks(answers) == [[]]
    assert answers[0].volume_capacity_bytes == BLOCKS * BLOCK_SIZE


def test_offset_starts_at_its_block_and_messages_are_limited(service: SnapshotMetadata) -> None:
    request = _allocated("before", offset=3 * BLOCK_SIZE + 1, limit=2)
    assert _blocks(service.get_metadata_allocated(request)) == [[3, 4], [5]]


@pytest.mark.parametrize(
    ("code", "call"),
    [
        ("NOT_FOUND", lambda service: service.get_metadata_allocated(_allocated("absent"))),
        ("OUT_OF_RANGE", lambda service: service.get_metadata_allocated(_allocated("before", BLOCKS * BLOCK_SIZE + 1))),
        ("INVALID_ARGUMENT", lambda service: service.get_metadata_delta(_delta("before", "stranger"))),
    ],
)
def test_wrong_requests_are_refused(
    service: SnapshotMetadata, code: str, call: Callable[[SnapshotMetadata], Any]
) -> None:
    with pytest.raises(RefusalError) as caught:
        list(call(service))
    assert caught.value.code == code
