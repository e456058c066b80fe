"""The program ``cinderblock``: runs a command, and converts its result into an exit code.

Only the module of the requested command is imported. The operator's needs kopf, others need boto3, ``--help`` neither.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import importlib
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol, cast

from cinderblock import __version__
from cinderblock.cli import signals
from cinderblock.cli.exit_codes import (
    BROKEN_PIPE,
    NO_OUTPUT,
    SIGNALLED,
    SUCCESS,
    UNEXPECTED,
    USAGE,
    exit_code_for,
)
from cinderblock.cli.output import printable
from cinderblock.cli.standard_streams import OutputFile, guard, open_standard_descriptors
from cinderblock.errors import CinderblockError, KeyUnavailable, SealBroken
from cinderblock.reasons import Reason

DESCRIPTION: Final = """\
Back up volumes to S3 object storage, and restore them.

In a cluster, the operator does this for VolumeBackup and VolumeRestore objects. On any machine, without a cluster:

  cinderblock backup /srv/data --to s3://backups/prefix
  cinderblock list --from s3://backups/prefix
  cinderblock restore ID --from s3://backups/prefix --target /srv/restored

Both use the same format: the commands can list, verify and restore the operator's backups, and the operator can import
backups made with the commands.
"""

EPILOG: Final = """\
Run "cinderblock COMMAND --help" for the options of a command.

Credentials come from the usual AWS sources: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws, or the
role of the machine. No option takes a secret, because all users of a machine can read its command lines.

exit codes:
  0    success
  1    unexpected failure: a fault of this program, or of the machine
  2    invalid command line
  3    permanent failure: trying again does not help
  4    temporary failure: trying again can help, for example if the store did not answer or files changed too fast
  5    stored data is damaged or missing, or the key is not the one that encrypted it
  6    the backup is complete except for files that could not be read (--skip-unreadable); recover: claims that existed
       before were not touched
  7    the store keeps an object locked: try again when its retention has ended, or its legal hold is lifted
  8    the command has succeeded, but its output could not be written
  129  stopped by SIGHUP
  130  stopped by SIGINT
  141  the same as 8, because the reader of the output has gone (SIGPIPE)
  143  stopped by SIGTERM
After a signal, uploads in progress are awaited. A second signal ends the command at once.
"""

_ADVICE: Final = {
    KeyUnavailable.__name__: "give the key with --encryption-key-file ID=FILE",
    SealBroken.__name__: "to accept a backup that was made without encryption, use --allow-unsealed",
}
"""Options that can help with an error, by the error's reason."""


_READ_IN_PART: Final = frozenset({"list", "show", "retention"})
"""Commands whose readers often take only the first lines, as head does. Then nobody wants to read about it."""


class Command(NamedTuple):
    """A command that is not imported yet.

    Attributes:
        module: its module in `cinderblock.cli.commands`.
        summary: its line in the help.
        in_cluster: whether only containers run it.
    """

    module: str
    summary: str
    in_cluster: bool = False


COMMANDS: Final = {
    "backup": Command("backup", "back up a directory, an image file or a block device"),
    "restore": Command("restore", "restore a backup, or some of its paths"),
    "list": Command("list", "list the backups in a store"),
    "show": Command("show", "show the details of a backup"),
    "verify": Command("verify", "check every byte of a stored backup"),
    "delete": Command("delete", "delete a backup"),
    "key": Command("key", "check whether encryption keys open the backups in a store"),
    "rewrap": Command("rewrap", "encrypt the data keys of backups with a new key"),
    "retention": Command("retention", "show which backups retention would keep and remove"),
    "rescue": Command("versions.rescue", "bring back backups that were deleted or overwritten in a versioned bucket"),
    "recover": Command("recover", "recover the volumes of a lost cluster from the bucket and the keys"),
    "release-finalizers": Command("release_finalizers", "remove all finalizers before the operator is uninstalled"),
    "operator": Command("run_operator", "run the operator", in_cluster=True),
    "gateway": Command("run_gateway", "serve Cinder's REST API", in_cluster=True),
    "broker": Command("run_broker", "give movers of shared stores access", in_cluster=True),
    "mover": Command("run_mover", "run one backup, restore or verification of the operator", in_cluster=True),
    "embedded-store": Command("embedded_store", "set up the S3 server of the Helm chart", in_cluster=True),
}


class CommandModule(Protocol):
    """The interface of a command's module."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Describe the command and its arguments."""

    def run(self, arguments: argparse.Namespace) -> int:
        """Run the command. Returns the exit code. Raises CinderblockError."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default the one of the process. Returns the exit code."""
    open_standard_descriptors()
    words = list(sys.argv[1:] if arguments is None else arguments)
    sys.stdout, output = guard(sys.stdout, 1)
    sys.stderr, _ = guard(sys.stderr, 2)
    try:
        return _run_to_end(words, output)
    except signals.Interrupted as error:
        # Nobody may read the output: writing the rest of it could take forever, also when the interpreter exits.
        if output is not None:
            output.drop()
        return SIGNALLED + error.signal


def _run_to_end(words: Sequence[str], output: OutputFile | None) -> int:
    """Run a command line, and write all of its output. Raises Interrupted."""
    try:
        code = _run(words)
    except SystemExit as end:
        # argparse ends in this way. Its help is output, too.
        code = end.code if isinstance(end.code, int) else USAGE if end.code else SUCCESS
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        raise SystemExit(_finish_output(code, words, output)) from None
    is_log = bool(words) and words[0] in COMMANDS and COMMANDS[words[0]].in_cluster
    return _finish_output(code, words, None if is_log else output)


def _run(words: Sequence[str]) -> int:
    if not words or words[0] not in COMMANDS:
        make_parser().parse_args(words or ["--help"])
        return USAGE
    # Without this, the interpreter collects garbage among all imported modules at exit, which takes 0.05 s.
    atexit.register(gc.freeze)
    logging.basicConfig(format="cinderblock: %(message)s", level=logging.WARNING)
    name = words[0]
    signals.raise_on_signals(name)
    parsed: argparse.Namespace | None = None
    try:
        module = load(name)
        # Intermixed, so that paths can follow options.
        parsed = make_command_parser(name, module).parse_intermixed_args(words[1:])
        return module.run(parsed)
    except CinderblockError as error:
        _print_error(name, error, as_json=getattr(parsed, "json", False))
        return exit_code_for(error)
    except signals.Interrupted:
        raise
    except KeyboardInterrupt:
        # asyncio raises one of its own after SIGINT.
        signals.restore_defaults()
        print(f"cinderblock {name}: stopped by SIGINT", file=sys.stderr)
        raise signals.Interrupted(signal.SIGINT) from None
    except Exception as error:
        # Logs of pods must have the whole traceback.
        if COMMANDS[name].in_cluster:
            raise
        _print_error(name, _unexpected(error), as_json=getattr(parsed, "json", False))
        return UNEXPECTED


def _unexpected(error: Exception) -> CinderblockError:
    """Return what to say about an error that nobody expects. Its text may hold a secret, unless it is the system's."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    text = f" ({error.strerror})" if isinstance(error, OSError) and error.strerror else ""
    return CinderblockError(
        f"Cannot finish the command: an unexpected {type(error).__name__}{text} in {os.path.basename(place.filename)}"
        f" line {place.lineno}. Try again, and report it if it stays.",
        reason=Reason.UNEXPECTED,
    )


def _finish_output(code: int, words: Sequence[str], output: OutputFile | None) -> int:
    """Write what is buffered, and return the exit code. A result that could not be written is not a success."""
    sys.stdout.flush()
    sys.stderr.flush()
    if output is None or output.error is None:
        return code
    name = words[0] if words else ""
    is_reader_gone = output.error.errno == errno.EPIPE
    if not (is_reader_gone and name in _READ_IN_PART):
        cause = "its reader has gone" if is_reader_gone else output.error.strerror
        done = "The command has succeeded" if code == SUCCESS else f"The command has ended with exit code {code}"
        print(f"cinderblock {name}: cannot write the output: {cause}. {done}.", file=sys.stderr)
        sys.stderr.flush()
    if code != SUCCESS:
        return code
    return BROKEN_PIPE if is_reader_gone else NO_OUTPUT


def load(name: str) -> CommandModule:
    """Import the module of a command, without garbage collection, which took a tenth of the time."""
    gc.disable()
    try:
        return cast("CommandModule", importlib.import_module(f"cinderblock.cli.commands.{COMMANDS[name].module}"))
    finally:
        gc.enable()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the program, without the arguments of the commands."""
    parser = _parser("cinderblock")
    parser.epilog = EPILOG
    parser.add_argument("--version", action="version", version=f"cinderblock {__version__}")
    parser.usage = "cinderblock [-h] [--version] COMMAND ..."
    parser.description = f"{DESCRIPTION}\n{_list_commands()}"
    # The description lists the commands, in two groups; argparse knows only one.
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    return parser


def _list_commands() -> str:
    """Return the part of the help that lists the commands."""
    lines: list[str] = []
    for title, in_cluster in (("commands:", False), ("\ncommands of pods inside the cluster:", True)):
        lines.append(title)
        lines += [
            f"  {name:<20}{command.summary}" for name, command in COMMANDS.items() if command.in_cluster is in_cluster
        ]
    return "\n".join(lines)


def make_command_parser(name: str, module: CommandModule) -> argparse.ArgumentParser:
    """Return the parser of one command."""
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
