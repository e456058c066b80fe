"""``cinderblock operator``"""

from __future__ import annotations

import argparse

from cinderblock.controller.manager import main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments: the operator is configured by its environment."""
    parser.description = "Run the operator until it is told to stop. The chart sets the environment that it reads."


def run(arguments: argparse.Namespace) -> int:
    """Run it. Returns its exit code."""
    del arguments
    return main()
