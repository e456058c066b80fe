"""The mover's process: a task in, a report and an exit code out.

Exit codes: 0 success; 3 permanent failure, never to be tried again; 4 transient failure, to be tried again.
Standard output: progress as JSON lines (`model.task.ProgressLine`), at most one a second and one at the end.
Termination log: one `model.task.MoverReport` as JSON of at most 4096 bytes.
SIGTERM (a node that drains, a Job that is deleted): the process ends at once with a transient report. It may, since
nothing but the manifest makes a backup exist, and a later run takes over the packs that are there.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from types import FrameType
from typing import TextIO

from pydantic import ValidationError

from cinderblock.api.mover import (
    EXIT_TRANSIENT,
    SECRETS_DIRECTORY,
    TASK_VARIABLE,
    MoverOperation,
    MoverReport,
    MoverTask,
    StoreLocation,
    task_from_env,
)
from cinderblock.archiver.archiver import run_backup
from cinderblock.errors import CinderblockError, InvalidInput
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.mover.progress_log import ProgressPrinter
from cinderblock.mover.report import TERMINATION_LOG, exit_code, failure, write_report
from cinderblock.reasons import Reason
from cinderblock.restorer.restorer import run_restore
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.credentials import S3Credentials, read_credentials
from cinderblock.store.factory import open_store

logger = logging.getLogger(__name__)

StoreOpener = Callable[[StoreLocation, S3Credentials, str | None], ObjectStore]
"""Opens a store with credentials and the path of a CA file."""


def main(
    environment: Mapping[str, str],
    *,
    secrets_directory: str = SECRETS_DIRECTORY,
    termination_log: str = TERMINATION_LOG,
    out: TextIO | None = None,
    opener: StoreOpener = open_store,
) -> int:
    """Run the task that the environment holds. Returns the exit code.

    Args:
        environment: of the process; CINDERBLOCK_TASK holds the MoverTask as JSON.
        secrets_directory: below it are credentials/, encryption/ and ca/.
        termination_log: an existing file that gets the report.
        out: for progress; None: standard output.
        opener: opens the store.
    """
    printer = ProgressPrinter(sys.stdout if out is None else out)
    with _ending_on_sigterm(termination_log):
        report = _attempt(environment, secrets_directory, printer, opener)
    printer.finish(succeeded=report.succeeded)
    write_report(report, termination_log)
    return exit_code(report)


def _attempt(
    environment: Mapping[str, str], secrets_directory: str, printer: ProgressPrinter, opener: StoreOpener
) -> MoverReport:
    """Run the task; whatever happens becomes a report."""
    try:
        return _run(_read_task(environment), secrets_directory, printer, opener)
    except CinderblockError as error:
        return failure(error)
    except Exception as error:
        logger.exception("The mover failed in a way that was not foreseen")
        return MoverReport(
            succeeded=False, reason=Reason.UNEXPECTED, message=f"{type(error).__name__}: see the mover's log"
        )


def _run(task: MoverTask, secrets_directory: str, printer: ProgressPrinter, opener: StoreOpener) -> MoverReport:
    active = task.active_key if task.operation is MoverOperation.BACKUP else None
    keys = read_key_ring(os.path.join(secrets_directory, "encryption"), active)
    credentials = read_credentials(os.path.join(secrets_directory, "credentials"))
    ca_file = os.path.join(secrets_directory, "ca", "ca.crt")
    opened = opener(task.store, credentials, ca_file if os.path.exists(ca_file) else None)
    with closing(CountedStore(opened)) as store:
        store.check()
        run = run_backup if task.operation is MoverOperation.BACKUP else run_restore
        report = run(task, store, keys, printer)
        return report.model_copy(update={"requests": store.counts.requests})


def _read_task(environment: Mapping[str, str]) -> MoverTask:
    text = task_from_env(environment)
    if text is None:
        raise InvalidInput(f"{TASK_VARIABLE} is not set: the mover is started by the operator, as a Job")
    try:
        return MoverTask.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise InvalidInput(f"{TASK_VARIABLE} is malformed at {place or 'its beginning'}: {first['msg']}") from None


def read_key_ring(directory: str, active: str | None) -> KeyRing | None:
    """The key ring from the files of a mounted encryption Secret; None if there is no such directory.

    Raises InvalidInput for a malformed key; KeyUnavailable if ``active`` is not among them.
    """
    try:
        # The kubelet's own entries (..data and the directory it points to) begin with two dots.
        names = [name for name in os.listdir(directory) if not name.startswith("..")]
    except FileNotFoundError:
        return None
    data = {}
    for name in names:
        with open(os.path.join(directory, name), "rb") as file:
            data[name] = file.read()
    return KeyRing.from_secret(data, active)


@contextmanager
def _ending_on_sigterm(termination_log: str) -> Iterator[None]:
    """While inside, SIGTERM ends the process at once, with a transient report.

    ``os._exit``: an orderly end would wait for uploads that are on their way, longer than a pod is given.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        message = "the mover was told to stop: its node drains, or its Job was deleted"
        write_report(MoverReport(succeeded=False, reason=Reason.TERMINATED, message=message), termination_log)
        os._exit(EXIT_TRANSIENT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
