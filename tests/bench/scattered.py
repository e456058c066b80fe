"""A volume of 1 TiB with 1 GiB of data anywhere in it: memory must not grow with the volume."""

from __future__ import annotations

import os
from functools import partial
from typing import Final

from tests.bench.contenders import CINDERBLOCK, Cinderblock
from tests.bench.filesystem import fresh
from tests.bench.rounds import Measuring, Results, Step, check_equal
from tests.bench.running import Processors, aside
from tests.bench.server import BenchServer

STEPS: Final = (Step.FULL, Step.UNCHANGED, Step.RESTORE, Step.IN_PLACE)


def measure_scattered(size: int, server: BenchServer, scratch: str, processors: Processors) -> Results:
    """Back up, again, restore, and restore in place. No peer: one that reads holes would read a TiB of zeros."""
    path, target = os.path.join(scratch, "scattered"), os.path.join(scratch, "target-scattered")
    aside("tests.bench.volumes", "scattered", path, str(size), "1")
    measuring = Measuring("scattered", server, processors)
    program = Cinderblock(server, f"scattered-{CINDERBLOCK}", scratch, processors)
    with fresh(target):
        measuring.measure(Step.FULL, program, [path], partial(program.backup, path, first=True))
        measuring.measure(Step.UNCHANGED, program, [path], partial(program.backup, path, first=False))
        measuring.measure(Step.RESTORE, program, [], partial(program.restore, path, target))
        check_equal(path, program.restored(path, target))
        measuring.measure(
            Step.IN_PLACE, program, [program.restored(path, target)], partial(program.restore, path, target)
        )
    server.forget()
    os.unlink(path)
    return measuring.results
