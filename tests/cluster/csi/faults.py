"""Fault injection: a file in `<data>/faults/` makes the driver refuse or delay the calls of one name.

The file has the name of the call, such as `CreateSnapshot`, or `CreateSnapshot.<anything>` if several tests need their
own. It contains one JSON object, in which every key is optional:

    {"code": "INTERNAL", "message": "disk on fire", "times": 3, "delay": 5, "late": true, "match": "pvc-1234"}

- `code`, `message`: refuse with this gRPC status. Without `code`, the call is only delayed.
- `times`: number of calls; the driver decrements it in the file, and removes the file at the end. Default: no limit.
- `delay`: seconds to wait first. Other calls continue meanwhile.
- `late`: do the work before refusing, as if the answer had been lost.
- `match`: only calls whose request contains this text, such as the name of one volume.

`plant` writes such a file atomically, as tests must: an incomplete file makes calls fail with INTERNAL.
"""

import contextlib
import dataclasses
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from tests.cluster.csi.refusals import RefusalError

DIRECTORY = "faults"


@dataclass(frozen=True)
class Fault:
    """The content of one fault file, as described above."""

    code: str = ""
    message: str = "injected"
    times: int | None = None
    delay: float = 0
    late: bool = False
    match: str = ""


NO_FAULT = Fault()


def plant(data: str, call: str, fault: Fault, label: str = "") -> str:
    """Write the file of a fault for the driver with that data directory; return its path, which ends the fault."""
    directory = os.path.join(data, DIRECTORY)
    os.makedirs(directory, exist_ok=True)
    path = os.path.join(directory, f"{call}.{label}" if label else call)
    _write(path, fault)
    return path


class Faults:
    """The faults injected into one driver."""

    def __init__(self, data: str) -> None:
        self._directory = os.path.join(data, DIRECTORY)
        self._lock = threading.Lock()
        self._closed = threading.Event()
        os.makedirs(self._directory, exist_ok=True)

    def close(self) -> None:
        """End all delays: a call that sleeps would keep the process alive. The delayed calls are refused."""
        self._closed.set()

    @contextlib.contextmanager
    def around(self, call: str, request: str) -> Iterator[None]:
        """Run the work of one call under the fault that is planted for it, if any."""
        fault = self.take(call, request)
        if fault.delay and self._closed.wait(fault.delay):
            raise RefusalError("UNAVAILABLE", "the driver is stopping")
        if fault.code and not fault.late:
            raise RefusalError(fault.code, fault.message)
        yield
        if fault.code and fault.late:
            raise RefusalError(fault.code, fault.message)

    def take(self, call: str, request: str) -> Fault:
        """Return the first fault for this request, counting it down."""
        with self._lock:
            for entry in sorted(os.listdir(self._directory)):
                if entry == call or entry.startswith(call + "."):
                    path = os.path.join(self._directory, entry)
                    fault = _read(path)
                    if fault is not None and fault.match in request:
                        _count_down(path, fault)
                        return fault
        return NO_FAULT


def _read(path: str) -> Fault | None:
    try:
        with open(path, encoding="utf-8") as file:
            return Fault(**json.load(file))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RefusalError("INTERNAL", f"the fault in {path} cannot be read: {error}") from error


def _write(path: str, fault: Fault) -> None:
    hidden = os.path.join(os.path.dirname(path), "." + os.path.basename(path))
    with open(hidden, "w", encoding="utf-8") as file:
        json.dump(dataclasses.asdict(fault), file)
    os.rename(hidden, path)


def _count_down(path: str, fault: Fault) -> None:
    if fault.times is None:
        return
    if fault.times > 1:
        _write(path, dataclasses.replace(fault, times=fault.times - 1))
    else:
        os.unlink(path)
