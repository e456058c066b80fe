"""The program ``cinderblock``: finds the command that is asked for, and turns its end into an exit code.

Only the command's own module is imported: the operator's needs kopf, the others' need boto3, and ``--help`` neither.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import importlib
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, cast

from cinderblock import __version__
from cinderblock.cli.exit_codes import BROKEN_PIPE, INTERRUPTED, USAGE, exit_code_for
from cinderblock.cli.output import printable
from cinderblock.errors import CinderblockError, KeyUnavailable, SealBroken

DESCRIPTION: Final = """\
Back up volumes to S3 object storage, and restore them.

In a cluster all of this is done by the operator: apply a VolumeBackup. By hand, on any machine, without a cluster:

  cinderblock backup /srv/data --to s3://backups/prefix
  cinderblock list --from s3://backups/prefix
  cinderblock restore ID --from s3://backups/prefix --target /srv/restored

Backups made in one way can be listed, verified and restored in the other.
"""

EPILOG: Final = """\
Credentials are taken from where every AWS tool takes them: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE,
~/.aws, or the role of the machine. No option takes a secret, because every user of a machine can read command lines.

exit codes:
  0    success
  2    the command line is wrong
  3    failure; trying again cannot help
  4    failure; trying again may help: the store does not answer, files change too fast
  5    stored data is damaged or missing, or a key is not the one that sealed it
  6    a backup was made, but it lacks files that could not be read (--skip-unreadable)
  130  interrupted
  141  whoever read the output has gone
"""

_ADVICE: Final = {
    KeyUnavailable.__name__: "give that key with --encryption-key-file ID=FILE",
    SealBroken.__name__: "if it was made before there was a key, --allow-unsealed takes it",
}
"""What options can do about an error, by its reason."""


class Command(NamedTuple):
    """A subcommand before it is imported."""

    module: str
    summary: str


COMMANDS: Final = {
    "backup": Command("backup", "back up a directory, an image or a device"),
    "restore": Command("restore", "restore a backup, or some paths of it"),
    "list": Command("list", "list the backups in a store"),
    "show": Command("show", "show one backup"),
    "verify": Command("verify", "read a backup back and check every byte"),
    "delete": Command("delete", "delete a backup"),
    "rewrap": Command("rewrap", "change the key that backups are sealed with"),
    "operator": Command("run_operator", "run the operator (in its Deployment)"),
    "gateway": Command("run_gateway", "serve Cinder's REST API (in its Deployment)"),
    "mover": Command("run_mover", "run a mover (in its Job)"),
    "embedded-store": Command("embedded_store", "set up the chart's own S3 server (in its Job)"),
    "release-finalizers": Command("release_finalizers", "let go of all objects before the operator is removed"),
}


class CommandModule(Protocol):
    """What the module of a command gives."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Describe the command to its parser."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Do it. Returns the exit code; raises CinderblockError."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process. Returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in COMMANDS:
        make_parser().parse_args(words or ["--help"])
        return USAGE
    name = words[0]
    module = load(name)
    # Intermixed, so that paths may stand behind options.
    parsed = make_command_parser(name, module).parse_intermixed_args(words[1:])
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's character set lacks is spelt out.
        sys.stdout.reconfigure(errors="backslashreplace")
    # At its end the interpreter looks for garbage among all that was imported: 0.05 s, for memory that goes anyway.
    atexit.register(gc.freeze)
    logging.basicConfig(format="cinderblock: %(message)s", level=logging.WARNING)
    try:
        code = module.run(parsed)
        sys.stdout.flush()
    except CinderblockError as error:
        _print_error(name, error, as_json=getattr(parsed, "json", False))
        return exit_code_for(error)
    except KeyboardInterrupt:
        # What is on its way is waited for; who does not want to wait interrupts once more.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print(f"cinderblock {name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone, as head does; nothing is left to flush to.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    return code


def load(name: str) -> CommandModule:
    """Import the module of a command, without looking for garbage meanwhile: that took a tenth of the time."""
    gc.disable()
    try:
        return cast("CommandModule", importlib.import_module(f"cinderblock.cli.commands.{COMMANDS[name].module}"))
    finally:
        gc.enable()


def make_parser() -> argparse.ArgumentParser:
    """The parser of what stands in place of a command."""
    parser = _parser("cinderblock")
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("--version", action="version", version=f"cinderblock {__version__}")
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        commands.add_parser(name, help=command.summary)
    return parser


def make_command_parser(name: str, module: CommandModule) -> argparse.ArgumentParser:
    """The parser of one command's arguments."""
    parser = _parser(f"cinderblock {name}")
    module.add_arguments(parser)
    return parser


def _parser(program: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=program, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def _print_error(name: str, error: CinderblockError, *, as_json: bool) -> None:
    print(f"cinderblock {name}: {printable(error.message)}", file=sys.stderr)
    advice = _ADVICE.get(error.reason)
    if advice is not None:
        print(f"cinderblock: {advice}", file=sys.stderr)
    if as_json:
        failure = {"succeeded": False, "permanent": error.permanent, "reason": error.reason, "message": error.message}
        print(json.dumps(failure))
