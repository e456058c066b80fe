"""Check the prose and the links of everything that people read: part of `make lint`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.lint.links import check_links
from tests.lint.prose import check_all

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Print the findings. Return 1 if there are any in an enforced room."""
    parser = argparse.ArgumentParser(prog="python -m tests.lint", description=__doc__)
    parser.add_argument("--all", action="store_true", help="print the findings of rooms that are only counted, too")
    parser.add_argument("--counts", action="store_true", help="print how many findings each room has")
    arguments = parser.parse_args()
    failures = list(check_links(ROOT))
    enforced_only = not (arguments.all or arguments.counts)
    for name, (is_enforced, findings) in check_all(ROOT, enforced_only=enforced_only).items():
        failures += findings if is_enforced else []
        if arguments.all and not is_enforced:
            print(*findings, sep="\n")
        if arguments.counts:
            print(f"{name}: {len(findings)}" + ("" if is_enforced else " (not enforced)"))
    if failures:
        print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
