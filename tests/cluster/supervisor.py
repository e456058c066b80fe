"""Keep one program running, and end it together with its starter. Run as a script: it imports nothing of this project.

    supervisor.py [--restart] [--until-eof] [--remove=DIRECTORY] -- PROGRAM ARGUMENT...

--restart    start the program again whenever it ends: CSI sidecars exit when their driver has gone
--until-eof  kill the program when standard input ends: a pipe closes however the process at its other end dies
--remove     remove this directory at the end

The program never outlives this process: it is ended on SIGTERM and SIGINT, and by the kernel if this is killed.
"""

import argparse
import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
RESTART_SECONDS = 0.5
GRACE_SECONDS = 5


def main() -> int:
    """Run the program until it need not run any more, and return its exit code."""
    options = _options()
    stopping = Stopping(options.until_eof)
    try:
        code = _run(options.command, stopping)
        while options.restart and not stopping.asked:
            print(f"supervisor: {options.command[0]} ended with {code}; starting it again", file=sys.stderr, flush=True)
            stopping.wait(RESTART_SECONDS)
            if not stopping.asked:
                code = _run(options.command, stopping)
        return code if code >= 0 else 128 - code
    finally:
        if options.remove:
            shutil.rmtree(options.remove, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--until-eof", action="store_true")
    parser.add_argument("--remove", metavar="DIRECTORY")
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


class Stopping:
    """Whether this process must end, because of a signal or the end of its input."""

    def __init__(self, until_eof: bool) -> None:
        self.asked = False
        self.grace = GRACE_SECONDS
        """Seconds that the program may take to exit on its own. After the pipe is closed, nobody needs its results."""
        self._wakeup, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._ask)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poll = select.poll()
        self._poll.register(self._wakeup, select.POLLIN)
        if until_eof:
            self._poll.register(sys.stdin.fileno(), select.POLLIN)

    def wait(self, seconds: float | None) -> None:
        """Return at the next signal, also that of a child's end, at the end of input, or when the time is over."""
        for descriptor, _ in self._poll.poll(None if seconds is None else seconds * 1000):
            if not os.read(descriptor, 4096):
                self._poll.unregister(descriptor)
                self.asked, self.grace = True, 0

    def _ask(self, *_: object) -> None:
        self.asked = True


def _run(command: list[str], stopping: Stopping) -> int:
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        process_group=0,
        preexec_fn=_die_with_parent,  # noqa: PLW1509  # this process has one thread
    )
    while child.poll() is None and not stopping.asked:
        stopping.wait(None)
    if stopping.grace:
        child.terminate()
    deadline = time.monotonic() + stopping.grace
    while child.poll() is None and time.monotonic() < deadline:
        stopping.wait(deadline - time.monotonic())
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)  # also what the program started and left
    return child.wait()


def _die_with_parent() -> None:
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main())
