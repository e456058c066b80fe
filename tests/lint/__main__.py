"""Check prose, links and docstrings: part of `make lint`."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.lint.docstrings import check_code
from tests.lint.links import check_links
from tests.lint.prose import check_all

ROOT = Path(__file__).parents[2]


def main() -> int:
    """Print the findings. Return 1 if there are any."""
    failures = [*check_links(ROOT), *check_code(ROOT), *check_all(ROOT)]
    if failures:
        print(*failures, sep="\n", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
