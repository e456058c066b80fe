"""Write the results page: ratios first, then the measurements behind them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from tests.bench.aims import AIMS, MEMORY, REQUESTS_PER_GIB
from tests.bench.contenders import CINDERBLOCK
from tests.bench.peers import RESTIC
from tests.bench.rounds import COMMON, Limit, Results, Sample, Step

_MIB: Final = 1 << 20
QUANTITIES: Final[dict[str, Callable[[Sample], float]]] = {
    "Wall": lambda sample: sample.wall,
    "CPU": lambda sample: sample.cpu,
    "Peak memory": lambda sample: sample.memory,
    "Requests": lambda sample: sample.requests,
    "Stored": lambda sample: sample.stored,
}
"""Compared quantities by the title of their column."""
_LIMITS: Final = {
    ("image", Step.FULL): (Limit.READ, Limit.PUT),
    ("image", Step.UNCHANGED): (Limit.READ,),
    ("image", Step.RESTORE): (Limit.GET,),
    ("image", Step.IN_PLACE): (Limit.READ_TARGET,),
    ("tree", Step.FULL): (Limit.READ, Limit.PUT),
    ("tree", Step.RESTORE): (Limit.GET,),
    ("tree", Step.IN_PLACE): (Limit.READ_TARGET,),
}
"""Bounds of a step. The longest one counts, since a program can do them at the same time."""


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return the minimum, median and maximum, or nothing without values."""
    if not values:
        return ""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table. All columns except the first are right-aligned."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, rule, *rows))


def ratios(results: Results, peer: str) -> str:
    """Return how many times as much of each resource a peer uses, round by round."""
    heading = (f"{peer} / {CINDERBLOCK}", *QUANTITIES)
    return table(heading, [(str(step), *_ratio_row(results, peer, step)) for step in COMMON])


def _ratio_row(results: Results, peer: str, step: Step) -> Iterator[str]:
    pairs = list(zip(results.samples[step, peer], results.samples[step, CINDERBLOCK], strict=True))
    for amount in QUANTITIES.values():
        is_used = all(amount(our) for _, our in pairs)
        yield spread([amount(their) / amount(our) for their, our in pairs] if is_used else [])


def aims(kind: str, results: Results) -> str:
    """Return the aims, compared with restic and with the limit.

    If restic was not measured, compare with the limit only.
    """
    heading = ("Step", f"Faster than {RESTIC}", "Times the limit", "Aim", "Reached")
    return table(heading, (_aim_row(kind, results, step) for step in COMMON))


def _aim_row(kind: str, results: Results, step: Step) -> Sequence[str]:
    pairs = zip(results.samples[step, RESTIC], results.samples[step, CINDERBLOCK], strict=False)
    speed, limit = [their.wall / our.wall for their, our in pairs], _times_limit(kind, step, results)
    return str(step), spread(speed), spread(limit), *_verdict(kind, step, speed, limit)


def _times_limit(kind: str, step: Step, results: Results) -> list[float]:
    bounds = [results.limits[limit] for limit in _LIMITS.get((kind, step), ())]
    if not bounds:
        return []
    least = [max(values) for values in zip(*bounds, strict=True)]
    return [our.wall / bound for our, bound in zip(results.samples[step, CINDERBLOCK], least, strict=True)]


def _verdict(kind: str, step: Step, speed: Sequence[float], limit: Sequence[float]) -> tuple[str, str]:
    """Return an aim, and whether the median reaches it."""
    aim = AIMS.get((kind, step))
    words: list[str] = []
    held: list[bool] = []
    if aim is not None and speed:
        words.append(f"{aim.speed:g}")
        held.append(statistics.median(speed) >= aim.speed)
    if aim is not None and aim.limit is not None:
        words.append(f"limit {aim.limit:g}")
        held.append(statistics.median(limit) <= aim.limit)
    return ", ".join(words), ", ".join("yes" if one else "**no**" for one in held)


def measurements(results: Results, names: Sequence[str], steps: Iterable[Step] = Step) -> str:
    """Return all measurements."""
    heading = ("Step", "Program", "Wall s", "CPU s", "Peak MiB", "Requests", "Stored MiB", "Server CPU s", "Others %")
    measured = [(step, name) for step in steps for name in names if results.samples.get((step, name))]
    return table(heading, [_row(step, name, results.samples[step, name]) for step, name in measured])


def _row(step: Step, name: str, samples: Sequence[Sample]) -> Sequence[str]:
    return (
        str(step),
        name,
        spread([sample.wall for sample in samples]),
        spread([sample.cpu for sample in samples]),
        f"{max(sample.memory for sample in samples) / _MIB:.0f}",
        f"{max(sample.requests for sample in samples)}",
        f"{statistics.median(sample.stored for sample in samples) / _MIB:.1f}",
        f"{statistics.median(sample.server for sample in samples):.2f}",
        spread([100 * sample.others for sample in samples], 0),
    )


def limits(results: Results) -> str:
    """Return the measured limits."""
    return table(("Limit", "Wall s"), [(str(limit), spread(values)) for limit, values in results.limits.items()])


def rereads(results: Results) -> str:
    """Return how many files were read again because their timestamps were within the dirty window."""
    rows = [(str(step), str(max(counts))) for step, counts in results.rereads.items()]
    return table(("Step", "Files read again for the dirty window"), rows)


def bounds(all_results: Iterable[Results]) -> str:
    """Return the aims for memory and requests, over all measurements."""
    ours = [
        (step, sample)
        for results in all_results
        for (step, name), samples in results.samples.items()
        if name == CINDERBLOCK
        for sample in samples
    ]
    memory = max(sample.memory for _, sample in ours)
    requests = max(sample.requests / (sample.stored / 2**30) for step, sample in ours if step is Step.FULL)
    rows = [
        ("peak memory of any step, MiB", f"{memory / _MIB:.0f}", f"{MEMORY >> 20}", _word(memory <= MEMORY)),
        ("requests per GiB stored", f"{requests:.1f}", str(REQUESTS_PER_GIB), _word(requests <= REQUESTS_PER_GIB)),
    ]
    return table(("Bound", "Largest", "Aim", "Held"), rows)


def _word(held: bool) -> str:
    return "yes" if held else "**no**"
