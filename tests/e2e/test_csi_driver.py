"""The CSI driver of the test cluster does what the specification says, as far as csi-sanity can tell.

Each run has a driver of its own away from the cluster's kubelet: csi-sanity plays the kubelet, and it does not clean
up after a failure.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.cluster.csi.cleanup import release
from tests.cluster.csi.options import Options, parse
from tests.cluster.toolchain import tool

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="mounts and loop devices need root"),
]

START_SECONDS = 60
"""The first start on a machine downloads protocol files and generates code."""


@dataclass(frozen=True)
class Sandbox:
    """A running driver, and the directory that contains all of its files."""

    directory: str
    options: Options
    process: subprocess.Popen[bytes]


def _wait_for(path: str, driver: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not os.path.exists(path):
        assert driver.poll() is None, f"the driver ended with {driver.returncode}"
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


@contextlib.contextmanager
def _driver(*flags: str) -> Iterator[Sandbox]:
    with tempfile.TemporaryDirectory(prefix="csi-") as directory:
        data = os.path.join(directory, "data")
        arguments = ["--name=sanity.test", f"--data={data}", f"--kubelet-dir={directory}/kubelet", *flags]
        options = parse(arguments)
        driver = subprocess.Popen([sys.executable, "-m", "tests.cluster.csi", *arguments])
        try:
            _wait_for(options.registration_socket, driver)
            yield Sandbox(directory, options, driver)
        finally:
            driver.terminate()
            driver.wait()
            release(data, mounted_below=directory)


@pytest.mark.parametrize("access_type", ["mount", "block"])
@pytest.mark.parametrize("flags", [["--list-snapshots"], ["--no-snapshots"]], ids=["snapshots", "plain"])
def test_csi_sanity_passes(flags: list[str], access_type: str) -> None:
    with _driver(*flags) as sandbox:
        done = subprocess.run(
            [
                tool("csi-sanity"),
                f"-csi.endpoint=unix://{sandbox.options.socket}",
                f"-csi.mountdir={sandbox.directory}/mount",
                f"-csi.stagingdir={sandbox.directory}/staging",
                f"-csi.testvolumeaccesstype={access_type}",
                "-ginkgo.no-color",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_stopped_driver_leaves_no_socket() -> None:
    with _driver() as sandbox:
        sockets = [sandbox.options.socket, sandbox.options.registration_socket]
        directories = [os.path.dirname(socket) for socket in sockets]
        assert all(map(os.path.exists, sockets))
        sandbox.process.terminate()
        assert sandbox.process.wait() == 0
        assert [os.listdir(directory) for directory in directories] == [[], []]


def test_second_driver_on_the_same_data_does_not_start() -> None:
    with _driver() as sandbox:
        arguments = [
            "--name=other.test",
            f"--data={sandbox.options.data}",
            f"--kubelet-dir={sandbox.options.kubelet_dir}",
        ]
        done = subprocess.run(
            [sys.executable, "-m", "tests.cluster.csi", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert "another driver" in done.stderr
