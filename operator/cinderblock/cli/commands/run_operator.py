"""``cinderblock operator``"""

from __future__ import annotations

import argparse

from cinderblock.controller.manager import main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command. It takes no arguments: the environment configures the operator."""
    parser.description = "Run the operator until it receives SIGTERM. The chart sets the environment that it reads."


def run(arguments: argparse.Namespace) -> int:
    """Run the operator. Returns the exit code."""
    del arguments
    return main()
