"""The page with the figures: ratios first, then what they were made from."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence

from tests.bench.aims import AIMS, MEMORY, REQUESTS_PER_GIB
from tests.bench.contenders import CINDERBLOCK
from tests.bench.rounds import Figures, Limit, Sample, Step

_MIB = 1 << 20
_LIMITS = {
    ("image", Step.FULL): (Limit.READ, Limit.PUT),
    ("image", Step.UNCHANGED): (Limit.READ,),
    ("image", Step.RESTORE): (Limit.GET,),
    ("image", Step.IN_PLACE): (Limit.READ_TARGET,),
    ("tree", Step.FULL): (Limit.READ, Limit.PUT),
    ("tree", Step.RESTORE): (Limit.GET,),
    ("tree", Step.IN_PLACE): (Limit.READ_TARGET,),
}
"""What bounds a step: the longest of these, since a program can do them at the same time."""


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Least, median and largest."""
    return " / ".join(f"{value:.{digits}f}" for value in (min(values), statistics.median(values), max(values)))


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of Markdown; all columns but the first to the right."""
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (heading, rule, *rows))


def ratios(kind: str, figures: Figures, peer: str) -> str:
    """How many times as fast as a peer, round by round, and how many times as long as the limit."""
    heading = ("Step", f"Faster than {peer}", "CPU less by", "Times the limit", "Aim", "Reached")
    return table(heading, _ratio_rows(kind, figures, peer))


def _ratio_rows(kind: str, figures: Figures, peer: str) -> Iterator[Sequence[str]]:
    for step in Step:
        ours, theirs = figures.samples[step, CINDERBLOCK], figures.samples[step, peer]
        speed = [their.wall / our.wall for our, their in zip(ours, theirs, strict=True)]
        cpu = [their.cpu / our.cpu for our, their in zip(ours, theirs, strict=True)]
        limit = _times_limit(kind, step, figures)
        aim, reached = _verdict(kind, step, speed, limit)
        yield str(step), spread(speed), spread(cpu), spread(limit) if limit else "", aim, reached


def _times_limit(kind: str, step: Step, figures: Figures) -> list[float]:
    bounds = [figures.limits[limit] for limit in _LIMITS.get((kind, step), ())]
    if not bounds:
        return []
    least = [max(values) for values in zip(*bounds, strict=True)]
    return [our.wall / bound for our, bound in zip(figures.samples[step, CINDERBLOCK], least, strict=True)]


def _verdict(kind: str, step: Step, speed: Sequence[float], limit: Sequence[float]) -> tuple[str, str]:
    """An aim, and whether the median reaches it."""
    aim = AIMS.get((kind, step))
    if aim is None:
        return "", ""
    words, held = [f"{aim.speed:g}"], [statistics.median(speed) >= aim.speed]
    if aim.limit is not None:
        words.append(f"limit {aim.limit:g}")
        held.append(statistics.median(limit) <= aim.limit)
    return ", ".join(words), ", ".join("yes" if one else "**no**" for one in held)


def measurements(figures: Figures, names: Sequence[str], steps: Iterable[Step] = Step) -> str:
    """Everything as it was measured."""
    heading = ("Step", "Program", "Wall s", "CPU s", "Peak MiB", "Requests", "Stored MiB", "Others %")
    rows = [_row(step, name, figures.samples[step, name]) for step in steps for name in names]
    return table(heading, rows)


def _row(step: Step, name: str, samples: Sequence[Sample]) -> Sequence[str]:
    return (
        str(step),
        name,
        spread([sample.wall for sample in samples]),
        spread([sample.cpu for sample in samples]),
        f"{max(sample.memory for sample in samples) / _MIB:.0f}",
        f"{max(sample.requests for sample in samples)}",
        f"{statistics.median(sample.stored for sample in samples) / _MIB:.1f}",
        spread([100 * sample.others for sample in samples], 0),
    )


def limits(figures: Figures) -> str:
    """The limits as they were measured."""
    return table(("Limit", "Wall s"), [(str(limit), spread(values)) for limit, values in figures.limits.items()])


def bounds(all_figures: Iterable[Figures]) -> str:
    """The aims about memory and requests, over everything that was measured."""
    ours = [
        (step, sample)
        for figures in all_figures
        for (step, name), samples in figures.samples.items()
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
