"""All end-to-end tests on the cluster of KUBECONFIG: `make e2e`. Arguments are passed to pytest.

They wait most of the time, for pods and volumes, so they run side by side; after them, one by one, those marked
``disturbing``: what they do to the release would be felt by everybody.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.support.cluster.cluster import alone
from tests.support.cluster.runs import DIRECTORY, Run

SIDE_BY_SIDE: Final = 4
"""Processes. The longest file of tests takes two minutes, all of them together nine."""
PARTS: Final = (
    ("e2e and not bench and not long and not disturbing", ("-n", str(SIDE_BY_SIDE), "--dist", "loadfile")),
    ("e2e and not bench and not long and disturbing", ()),
)


def main(arguments: Sequence[str]) -> int:
    """Run them. Returns the exit code of the first part that failed; 0 if none did."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with alone(), tempfile.TemporaryDirectory(prefix="cinderblock-e2e-") as directory:
        environment = {**os.environ, DIRECTORY: directory}
        try:
            codes = [_pytest(["-m", marks, *options, *arguments], environment) for marks, options in PARTS]
        finally:
            Run(Path(directory)).end()
    return next((code for code in codes if code), 0)


def _pytest(options: Sequence[str], environment: dict[str, str]) -> int:
    with subprocess.Popen([sys.executable, "-m", "pytest", "tests/e2e", *options], env=environment) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            process.wait()
            raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
