"""``cinderblock mover``"""

from __future__ import annotations

import argparse
import os

from cinderblock.mover.main import main


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments: the task is in the environment."""
    parser.description = "Run the task in CINDERBLOCK_TASK. The operator starts this, in a Job."


def run(arguments: argparse.Namespace) -> int:
    """Run it. Returns its exit code."""
    del arguments
    return main(os.environ)
