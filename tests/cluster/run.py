"""Run a command with the cluster, and restore the machine afterwards, however the command or this process ends."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType

from tests.cluster import cluster
from tests.cluster.errors import ClusterError

KEEP_VARIABLE = "CINDERBLOCK_KEEP_CLUSTER"
_INTERRUPTED_SECONDS = 60
"""Time for a command that has received the same Ctrl-C: tests then remove their objects."""


def run(words: Sequence[str]) -> int:
    """Run the command and return its exit code, or 128 and the number of the signal that ended it.

    With KUBECONFIG set, it is somebody's cluster of their own choice, and nothing is started. Otherwise a cluster that
    was not there before is taken down at the end, unless CINDERBLOCK_KEEP_CLUSTER is 1. Raises ClusterError.
    """
    if os.environ.get("KUBECONFIG"):
        return _call(words, os.environ)
    with _ending_in_order():
        if os.environ.get(KEEP_VARIABLE) == "1":
            return _call(words, {**os.environ, **cluster.up().environment()})
        with cluster.borrowed() as settings:
            return _call(words, {**os.environ, **settings.environment()})


def _call(words: Sequence[str], environment: Mapping[str, str]) -> int:
    try:
        process = subprocess.Popen(words, env=environment)
    except OSError as error:
        raise ClusterError(f"{words[0]} cannot be run: {error.strerror}") from error
    with process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_INTERRUPTED_SECONDS)
            process.kill()
            raise
        except SystemExit:
            process.terminate()
            raise
    return code if code >= 0 else 128 - code


@contextlib.contextmanager
def _ending_in_order() -> Iterator[None]:
    """Unwind the stack on a signal that would otherwise end the process at once."""

    def unwind(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
