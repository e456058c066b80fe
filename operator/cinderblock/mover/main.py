"""Run the mover: read a task, run it, and leave a report and an exit code.

Exit codes: 0 success; 3 permanent failure, which must not be retried; 4 transient failure, which may be retried.
Standard output: progress as JSON lines (`api.mover.MoverProgress`), at most one each second and one at the end.
Termination log: one `api.mover.MoverReport` as JSON of at most 4096 bytes.
SIGTERM (a drained node, a deleted Job), SIGINT and SIGHUP: the process exits at once with a transient report. This is
safe, because only the manifest makes a backup exist, and a later run reuses the packs.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Final, TextIO

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
from cinderblock.format.crypto.keys import Keys
from cinderblock.mover.access import Access, StoreOpener, open_access, open_target
from cinderblock.mover.copies import run_copies
from cinderblock.mover.progress_log import ProgressPrinter
from cinderblock.mover.report import TERMINATION_LOG, exit_code, failure, write_report
from cinderblock.mover.verification import run_verification
from cinderblock.reasons import Reason
from cinderblock.repository.copying.copy_backup import CopyPlace
from cinderblock.repository.progress import ProgressCallback
from cinderblock.restorer.restorer import run_restore
from cinderblock.store.base import ObjectStore
from cinderblock.store.counted import CountedStore
from cinderblock.store.factory import open_store

logger = logging.getLogger(__name__)

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

Run = Callable[[MoverTask, ObjectStore, Keys | None, ProgressCallback], MoverReport]
TargetOpener = Callable[[StoreLocation], AbstractContextManager[Access]]
"""Opens the store that gets copies."""
_RUNS: Final[Mapping[MoverOperation, Run]] = {
    MoverOperation.BACKUP: run_backup,
    MoverOperation.RESTORE: run_restore,
    MoverOperation.VERIFY: run_verification,
}
"""The function that runs each operation on one store."""


def main(
    environment: Mapping[str, str],
    *,
    secrets_directory: str = SECRETS_DIRECTORY,
    termination_log: str = TERMINATION_LOG,
    out: TextIO | None = None,
    opener: StoreOpener = open_store,
) -> int:
    """Run the task in the environment. Return the exit code.

    Args:
        environment: of the process; CINDERBLOCK_TASK holds the MoverTask as JSON.
        secrets_directory: holds credentials/, encryption/ and ca/, or broker/ with a token.
        termination_log: an existing file that gets the report.
        out: gets the progress; None: standard output.
        opener: opens the store.
    """
    printer = ProgressPrinter(sys.stdout if out is None else out)
    with _exit_on_signals(termination_log):
        report = _run_to_report(environment, secrets_directory, printer, opener)
    printer.finish(succeeded=report.succeeded)
    try:
        write_report(report, termination_log)
    except OSError as error:
        # Without its report the operator cannot use the result. The next run finds the packs, or the manifest.
        logger.error("Cannot write the report to %s: %s", termination_log, error.strerror)
        return EXIT_TRANSIENT
    return exit_code(report)


def _run_to_report(
    environment: Mapping[str, str], secrets_directory: str, printer: ProgressPrinter, opener: StoreOpener
) -> MoverReport:
    """Run the task. Every error becomes a report."""
    try:
        return _run(_read_task(environment), secrets_directory, printer, opener)
    except CinderblockError as error:
        return failure(error)
    except Exception as error:
        logger.exception("The mover failed unexpectedly")
        return MoverReport(
            succeeded=False, reason=Reason.UNEXPECTED, message=f"{type(error).__name__}: see the mover's log"
        )


def _run(task: MoverTask, secrets_directory: str, printer: ProgressPrinter, opener: StoreOpener) -> MoverReport:
    with open_access(task, secrets_directory, opener) as access:
        store = CountedStore(access.store)
        if task.broker is None or task.broker.lists:
            store.check()
        if task.operation is MoverOperation.COPY:
            opens = partial(open_target, secrets_directory=secrets_directory, opener=opener)
            report = _copy(task, CopyPlace(store, task.store.prefix, access.keys), printer, opens)
            return report.model_copy(update={"requests": store.counts.requests + report.requests})
        report = _RUNS[task.operation](task, store, access.keys, printer)
        return report.model_copy(update={"requests": store.counts.requests})


def _copy(task: MoverTask, source: CopyPlace, printer: ProgressPrinter, open_copies: TargetOpener) -> MoverReport:
    """Run the operation ``copy``, which needs a second store."""
    if task.copies is None or task.broker is not None:
        raise InvalidInput("Cannot copy: the task names no target, or a store that namespaces share.")
    with open_copies(task.copies.target) as access:
        store = CountedStore(access.store)
        store.check()
        target = CopyPlace(store, task.copies.target.prefix, access.keys)
        report = run_copies(task, task.copies, source, target, printer)
        return report.model_copy(update={"requests": store.counts.requests})


def _read_task(environment: Mapping[str, str]) -> MoverTask:
    text = task_from_env(environment)
    if text is None:
        raise InvalidInput(f"Cannot run the mover: {TASK_VARIABLE} is not set. The operator sets it in the Job.")
    try:
        return MoverTask.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise InvalidInput(
            f"Cannot read the task: {TASK_VARIABLE} is malformed at {field or 'its beginning'} ({first['msg']})."
        ) from None


@contextmanager
def _exit_on_signals(termination_log: str) -> Iterator[None]:
    """Exit at once with a transient report on a signal inside.

    This uses ``os._exit``, because an orderly exit would wait for running uploads, longer than a pod has.
    """

    def end(number: int, frame: FrameType | None) -> None:
        del frame
        message = "The mover was stopped: its node drains, or its Job was deleted."
        with suppress(OSError):
            write_report(MoverReport(succeeded=False, reason=Reason.TERMINATED, message=message), termination_log)
        with suppress(OSError):
            # Not by the logger: the signal may have come while it held its buffer.
            os.write(2, f"cinderblock mover: stopped by {signal.Signals(number).name}\n".encode())
        os._exit(EXIT_TRANSIENT)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, end) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
