"""Measures this program against peers and against the limit: `make bench`, or `python -m tests.bench --help`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Final

from tests.bench import page
from tests.bench.contenders import CINDERBLOCK
from tests.bench.machine import describe
from tests.bench.peers import KOPIA, PEERS, RESTIC, provide
from tests.bench.rounds import Bench, Figures, Volume, say
from tests.bench.running import BenchError, Processors, aside
from tests.bench.scattered import STEPS, measure_scattered
from tests.bench.server import serving
from tests.cluster.errors import ClusterError

_GIB: Final = 1 << 30
_METHOD: Final = """\
Made by `make bench`. Every round does every step with every program in turn, against one S3 server; each round begins
with empty repositories and caches, and another program goes first. Before a step everything is written to the disk, for
some seconds at most others are waited for to leave the measured processors alone, the page cache is filled, and what
the step will read is read into it: the volume or the target, and the program's objects in the store. Restores go to an
ext4 made for each, on a device without a cache of its own, and are timed until the program ends and until everything is
on the disk. In the first round what was restored is compared with what was backed up. Three figures are the least, the
median and the largest of the rounds; ratios are made round by round.

Every program runs with its default settings. This one seals, and has compiled bytecode, as in its image. It has the
smallest dirty window, which is waited out before a round: an unchanged incremental then reads no file. One more row
has all files within the window. An image gets a new mtime before each backup, as each snapshot of a device is a new
device: with the old mtime restic and kopia would not read it at all. CPU is user and system time of the program,
memory the `ru_maxrss` of its process (of several processes what they have together), requests are lines of the
server's access log. "Server CPU" is what the S3 server used meanwhile, "Others" the share of the measured processors
that neither of them used, with the kernel's own work for both. The limits are 8 threads that PUT and GET as many
bytes as this program stored, in objects of 24 MiB, through the same S3 client, and one thread that reads the source;
start of the interpreter left out.

Beside this program, each in the newest version that could be installed when it was pinned:
"""

_EPILOG: Final = """\
It is for a quiet machine, as root, with 20 GB free where temporary files are. On one with two processors the S3 server
shares them with what is measured; `taskset --cpu-list 0,1` in front makes a larger machine one with two.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line says, and print the page. Returns the exit code."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        text = measure(options)
    except (BenchError, ClusterError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    print(text, end="")
    if options.write:
        with open(options.write, "w", encoding="utf-8") as file:
            file.write(text)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__, epilog=_EPILOG)
    parser.add_argument("--rounds", type=int, default=2, help="default: 2")
    parser.add_argument("--size", type=int, default=2 * _GIB, help="bytes of the image (default: 2 GiB)")
    parser.add_argument("--files", type=int, default=124_000, help="files of the tree (default: 124000)")
    parser.add_argument("--scattered", type=int, default=1024 * _GIB, help="bytes of the sparse image (default: 1 TiB)")
    parser.add_argument("--only", choices=("image", "tree", "scattered"), help="measure only this")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=PEERS,
        default=[RESTIC, KOPIA],
        help="default: restic kopia; without a name none. cinder, for the image only, adds some 2 minutes to a round",
    )
    parser.add_argument("--processors", type=int, default=2, help="processors for what is measured (default: 2)")
    parser.add_argument("--patience", type=int, default=10, help="seconds to wait for calm before a step (default: 10)")
    parser.add_argument("--quick", action="store_true", help="small volumes and one round: does it run at all")
    parser.add_argument("--write", metavar="FILE", help="write the page there too")
    return parser


def measure(options: argparse.Namespace) -> str:
    """Make volumes, measure, and return the page. Raises BenchError or ClusterError."""
    if options.quick:
        options.rounds, options.size, options.files, options.scattered = 1, 64 << 20, 500, _GIB
    processors = Processors.divide(options.processors, 0 if options.quick else options.patience)
    provide(options.peers)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        machine = list(describe(scratch, processors))
        with serving(scratch, processors) as server:
            found: dict[str, Figures] = {}
            for kind, amount in (("image", options.size), ("tree", options.files)):
                if options.only in (None, kind):
                    volume = os.path.join(scratch, kind)
                    aside("tests.bench.volumes", kind, volume, str(amount), "1")
                    names = [CINDERBLOCK, *_peers_for(kind, options.peers)]
                    bench = Bench(Volume(volume), names, server, scratch, processors)
                    for number in range(options.rounds):
                        say(f"{kind}: round {number + 1} of {options.rounds}")
                        bench.round(number)
                    found[kind] = bench.figures
            if options.only in (None, "scattered"):
                found["scattered"] = measure_scattered(options.scattered, server, scratch, processors)
    return "\n".join(_page(options, machine, found))


def _peers_for(kind: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if kind in PEERS[name].kinds]


def _page(options: argparse.Namespace, machine: Sequence[str], found: dict[str, Figures]) -> Iterator[str]:
    yield "# Measured"
    yield ""
    yield _METHOD
    yield from (f"- {name} {PEERS[name].version()} {PEERS[name].manner}." for name in options.peers)
    yield ""
    yield f"Rounds: {options.rounds}, {datetime.now(UTC):%Y-%m-%d}."
    yield ""
    yield from (f"- {line}" for line in machine)
    titles = {
        "image": f"An image of {options.size / _GIB:.2f} GiB: one third holes, text and noise each",
        "tree": f"A tree of {options.files} files",
        "scattered": f"An image of {options.scattered / _GIB:.0f} GiB with at most 1 GiB of data scattered in it",
    }
    for kind, figures in found.items():
        yield from ("", f"## {titles[kind]}", "")
        if kind == "scattered":
            yield page.measurements(figures, [CINDERBLOCK], STEPS)
            continue
        peers = _peers_for(kind, options.peers)
        for peer in peers:
            yield from (page.ratios(figures, peer), "")
        yield from (page.aims(kind, figures), "")
        yield from (page.measurements(figures, [CINDERBLOCK, *peers]), "", page.limits(figures))
    yield from ("", "## Bounds", "", page.bounds(found.values()), "")


if __name__ == "__main__":
    sys.exit(main())
