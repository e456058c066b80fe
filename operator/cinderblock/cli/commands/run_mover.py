"""``cinderblock mover``"""

from __future__ import annotations

import argparse
import logging
import os

from cinderblock.mover.main import main
from cinderblock.observability import log


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Describe the command. It takes no arguments: the task is in the environment."""
    parser.description = "Run the task in the variable CINDERBLOCK_TASK. The operator starts movers, each in a Job."


def run(arguments: argparse.Namespace) -> int:
    """Run the task. Returns the exit code."""
    del arguments
    log.configure("mover", logging.WARNING)
    return main(os.environ)
