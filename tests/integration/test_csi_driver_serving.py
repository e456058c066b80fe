"""The driver's calls over a real socket: answers, refusals and injected faults, as gRPC clients see them."""

import os
import tempfile
import time
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import pytest

from tests.cluster.csi import driver, messages
from tests.cluster.csi.faults import Fault, Faults, plant
from tests.cluster.csi.options import Options, parse
from tests.cluster.csi.refusals import RefusalError

pytestmark = pytest.mark.integration

SIZE = 1 << 20


@pytest.fixture
def options() -> Iterator[Options]:
    with tempfile.TemporaryDirectory(prefix="csi-") as directory:
        chosen = parse(["--name=serving.test", f"--data={directory}/data", f"--kubelet-dir={directory}"])
        with driver.running(chosen):
            yield chosen


class Client:
    """Calls a driver by the names of its methods."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    def create(self, name: str) -> Any:
        capability = messages.VolumeCapability(block=messages.VolumeCapability.BlockVolume())
        request = messages.CreateVolumeRequest(name=name, volume_capabilities=[capability])
        request.capacity_range.required_bytes = SIZE
        return self._unary("CreateVolume", messages.CreateVolumeResponse)(request)

    def delete(self, name: str) -> Any:
        request = messages.DeleteVolumeRequest(volume_id=name)
        return self._unary("DeleteVolume", messages.DeleteVolumeResponse)(request)

    def expand(self, name: str) -> Any:
        request = messages.ControllerExpandVolumeRequest(volume_id=name)
        return self._unary("ControllerExpandVolume", messages.ControllerExpandVolumeResponse)(request)

    def allocated(self, snapshot: str) -> list[Any]:
        call = self._channel.unary_stream(
            "/csi.v1.SnapshotMetadata/GetMetadataAllocated",
            request_serializer=messages.GetMetadataAllocatedRequest.SerializeToString,
            response_deserializer=messages.GetMetadataAllocatedResponse.FromString,
        )
        return list(call(messages.GetMetadataAllocatedRequest(snapshot_id=snapshot)))

    def _unary(self, method: str, response: Any) -> Any:
        return self._channel.unary_unary(
            f"/csi.v1.Controller/{method}",
            request_serializer=lambda request: request.SerializeToString(),
            response_deserializer=response.FromString,
        )


@pytest.fixture
def client(options: Options) -> Iterator[Client]:
    with grpc.insecure_channel(f"unix:{options.socket}") as channel:
        yield Client(channel)


def status(call: Any, *arguments: Any) -> Any:
    with pytest.raises(grpc.RpcError) as caught:
        call(*arguments)
    return caught.value.code()


def test_fault_refuses_the_given_number_of_calls(options: Options, client: Client) -> None:
    plant(options.data, "CreateVolume", Fault(code="RESOURCE_EXHAUSTED", times=2))
    assert status(client.create, "one") == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert status(client.create, "one") == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.create("one").volume.capacity_bytes == SIZE


def test_late_fault_loses_the_answer_but_not_the_work(options: Options, client: Client) -> None:
    plant(options.data, "CreateVolume", Fault(code="UNAVAILABLE", late=True, times=1))
    assert status(client.create, "one") == grpc.StatusCode.UNAVAILABLE
    assert os.listdir(f"{options.data}/volumes").count("one.img") == 1


def test_delayed_call_does_not_block_others(options: Options, client: Client) -> None:
    with futures.ThreadPoolExecutor() as pool:
        path = plant(options.data, "CreateVolume", Fault(delay=2, times=1, match="slow"))
        slow = pool.submit(client.create, "slow")
        while os.path.exists(path):
            time.sleep(0.01)
        client.create("quick")
        assert not slow.done()
        assert slow.result().volume.volume_id == "slow"


def test_delay_ends_when_the_driver_stops(tmp_path: Path) -> None:
    plant(str(tmp_path), "CreateVolume", Fault(delay=600))
    faults = Faults(str(tmp_path))
    faults.close()
    with pytest.raises(RefusalError, match="stopping"), faults.around("CreateVolume", ""):
        pytest.fail("the call was let through")


def test_calls_that_are_not_offered_are_unimplemented(client: Client) -> None:
    assert status(client.expand, "one") == grpc.StatusCode.UNIMPLEMENTED


def test_refusal_ends_a_stream(client: Client) -> None:
    assert status(client.allocated, "absent") == grpc.StatusCode.NOT_FOUND


def test_name_cannot_leave_the_data_directory(client: Client) -> None:
    assert status(client.create, "../one") == grpc.StatusCode.INVALID_ARGUMENT
    assert status(client.delete, "../volumes/one") == grpc.StatusCode.INVALID_ARGUMENT
