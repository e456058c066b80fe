"""Measure this program against its peers and against the limit: `make bench`, or `python -m tests.bench --help`."""

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
from tests.bench.rounds import Bench, Results, Volume, say
from tests.bench.running import BenchError, Processors, aside
from tests.bench.scattered import STEPS, measure_scattered
from tests.bench.server import serving
from tests.cluster.errors import ClusterError

_GIB: Final = 1 << 30
_METHOD: Final = """\
Made by `make bench`. In every round, each program runs each step in turn, against one S3 server. Each round begins with
empty repositories and caches, and with another program. Before a step, everything is written to the disk, and the page
cache is filled with what the step will read: the volume or the target, and the program's objects in the store. The
bench also waits some seconds at most for other processes to leave the measured processors. Restores go to a newly made
ext4, on a device without its own cache. Their time is measured until the program ends, and until everything is on the
disk. In the first round, restored data is compared with the original. Three numbers are the least, the median and the
largest of the rounds. Ratios are calculated round by round.

Every program runs with its default settings. Cinderblock seals, has the smallest dirty window (two minutes), and has
compiled bytecode, as in its image. An image gets a new mtime before each backup, because each snapshot of a device is a
new device: with the old mtime, restic and kopia would not read it at all. CPU is user and system time of the program.
Memory is the `ru_maxrss` of its process, or the sum of several processes. Requests are lines of the server's access
log. "Server CPU" is what the S3 server used at the same time. "Others" is the share of the measured processors that
neither of them used, including the kernel's work for both. One limit is the time of 8 threads that PUT and GET as many
bytes as Cinderblock stored, in objects of 24 MiB, through the same S3 client. The other is one thread that reads the
source. The start of the interpreter is not included.

An incremental backup of a tree reads every file again that was written within the dirty window before its parent, or
later. So the backups begin when nothing has been written for two minutes, and the step "unchanged incremental" may read
no file again; otherwise the bench fails. The step "incremental, just written" has a window of a day, within which all
files were written. It shows the cost of an incremental backup if everything was written shortly before its parent.

Compared programs, each in the newest version that could be installed when it was pinned:
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
    parser.add_argument(
        "--wait-seconds", type=int, default=10, help="seconds to wait for calm before a step (default: 10)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="small volumes and one round, in 3 minutes: does it run at all"
    )
    parser.add_argument("--write", metavar="FILE", help="write the page there too")
    return parser


def measure(options: argparse.Namespace) -> str:
    """Make volumes, measure, and return the page. Raises BenchError or ClusterError."""
    if options.quick:
        options.rounds, options.size, options.files, options.scattered = 1, 64 << 20, 500, _GIB
    processors = Processors.divide(options.processors, 0 if options.quick else options.wait_seconds)
    provide(options.peers)
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        machine = list(describe(scratch, processors))
        with serving(scratch, processors) as server:
            found: dict[str, Results] = {}
            # All are made first: a tree grows older than the dirty window while the image is measured.
            for kind, volume in _volumes(options, scratch).items():
                names = [CINDERBLOCK, *_peers_for(kind, options.peers)]
                bench = Bench(volume, names, server, scratch, processors)
                for number in range(options.rounds):
                    say(f"{kind}: round {number + 1} of {options.rounds}")
                    bench.round(number)
                found[kind] = bench.results
            if options.only in (None, "scattered"):
                found["scattered"] = measure_scattered(options.scattered, server, scratch, processors)
    return "\n".join(_page(options, machine, found))


def _volumes(options: argparse.Namespace, scratch: str) -> dict[str, Volume]:
    volumes = {}
    for kind, amount in (("image", options.size), ("tree", options.files)):
        if options.only in (None, kind):
            path = os.path.join(scratch, kind)
            aside("tests.bench.volumes", kind, path, str(amount), "1")
            volumes[kind] = Volume(path)
    return volumes


def _peers_for(kind: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if kind in PEERS[name].kinds]


def _page(options: argparse.Namespace, machine: Sequence[str], found: dict[str, Results]) -> Iterator[str]:
    yield "# Results of `make bench`"
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
    for kind, results in found.items():
        yield from ("", f"## {titles[kind]}", "")
        if kind == "scattered":
            yield page.measurements(results, [CINDERBLOCK], STEPS)
            continue
        peers = _peers_for(kind, options.peers)
        for peer in peers:
            yield from (page.ratios(results, peer), "")
        yield from (page.aims(kind, results), "")
        yield from (page.measurements(results, [CINDERBLOCK, *peers]), "", page.limits(results))
        if results.rereads:
            yield from ("", page.rereads(results))
    yield from ("", "## Bounds", "", page.bounds(found.values()), "")


if __name__ == "__main__":
    sys.exit(main())
