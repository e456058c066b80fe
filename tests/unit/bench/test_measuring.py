"""The bench measures the resources that programs use, and its page shows them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.bench import page
from tests.bench.contenders import CINDERBLOCK
from tests.bench.peers import KOPIA, RESTIC
from tests.bench.rounds import Limit, Results, Sample, Step

_MEASURE = """
import sys
from tests.bench.running import Processors, run
print(run([sys.executable, "-I", "-S", "-c", sys.argv[1]], {}, Processors.divide(1, 0)).memory)
"""
_HOLD = "held = bytearray({bytes}); held[::4096] = b'x' * len(held[::4096])"
_CHILD = "import time\n{hold}\ntime.sleep(1)"
_PARENT = "import subprocess, sys\n{hold}\nsubprocess.run([sys.executable, '-c', {child!r}], check=True)"


def test_memory_is_that_of_all_processes_of_a_program_together() -> None:
    hold = _HOLD.format(bytes=100 << 20)
    program = _PARENT.format(hold=hold, child=_CHILD.format(hold=hold))

    assert 200 << 20 <= _measured(program) < 240 << 20


def test_memory_of_one_process_is_its_largest_resident_set() -> None:
    assert 100 << 20 <= _measured(_HOLD.format(bytes=100 << 20)) < 130 << 20


def test_aim_compares_the_median_with_restic_and_the_limit() -> None:
    results = Results()
    for ours, theirs in ((1.0, 5.0), (1.0, 4.5), (2.0, 4.0)):
        for step in Step:
            results.samples[step, CINDERBLOCK].append(_sample(wall=ours))
            results.samples[step, RESTIC].append(_sample(wall=theirs))
        for limit in Limit:
            results.limits[limit].append(0.5 if limit is Limit.PUT else 0.1)

    [row] = [row for row in page.aims("image", results).splitlines() if row.startswith("| full |")]

    assert row == "| full | 2.00 / 4.50 / 5.00 | 2.00 / 2.00 / 4.00 | 4, limit 1.5 | yes, **no** |"


def test_ratio_covers_every_resource_that_this_program_used() -> None:
    results = Results()
    for step in Step:
        results.samples[step, CINDERBLOCK].append(_sample(wall=2.0, memory=100, requests=10, stored=0))
        results.samples[step, KOPIA].append(_sample(wall=3.0, memory=250, requests=5, stored=7))

    [row] = [row for row in page.ratios(results, KOPIA).splitlines() if row.startswith("| restore |")]

    assert [cell.split(" / ")[0].strip() for cell in row.split("|")[2:-1]] == ["1.50", "1.00", "2.50", "0.50", ""]


def _measured(program: str) -> int:
    """Return the memory that a minimal process measures, in bytes.

    It is a child of a shell: what pytest starts itself counts the memory of pytest as its own.
    """
    command = ["sh", "-c", '"$@"; exit "$?"', "sh", sys.executable, "-c", _MEASURE, program]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    return int(done.stdout)


def _sample(*, wall: float, memory: int = 1, requests: int = 1, stored: int = 1) -> Sample:
    return Sample(wall=wall, cpu=1.0, memory=memory, requests=requests, stored=stored, server=0.0, others=0.0)
