"""OpenStack's clients in one process, which calls their ``main`` functions so that they are imported only once.

Runs in the virtualenv of tests/openstack/locks/clients.txt or clients-v2.txt. Reads calls from standard input, one
JSON object per line, and answers each with one: {"argv", "env"} -> {"code", "out", "err"}.
"""

import contextlib
import importlib
import io
import json
import logging
import os
import sys
import warnings
from types import ModuleType

PROGRAMS = {
    "cinder": "cinderclient.shell",
    "openstack": "openstackclient.shell",
    "python": "tests.openstack.client_calls",
}


def main() -> None:
    """Run command lines from standard input until it ends."""
    warnings.simplefilter("ignore")
    surroundings = dict(os.environ)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    for line in sys.stdin:
        call = json.loads(line)
        os.environ.clear()
        os.environ.update(surroundings | call["env"])
        print(json.dumps(_answer(call["argv"])), file=answers, flush=True)


def _answer(argv: list[str]) -> dict[str, object]:
    """Run the program in a child process, so that it does not affect the next call."""
    program = importlib.import_module(PROGRAMS[argv[0]])
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with os.fdopen(writer, "w", encoding="utf-8") as answer:
            json.dump(_captured(program, argv), answer)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, encoding="utf-8") as answer:
        response = answer.read()
    os.waitpid(child, 0)
    return json.loads(response) if response else {"code": 70, "out": "", "err": "The program has crashed"}


def _captured(program: ModuleType, argv: list[str]) -> dict[str, object]:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = _run(program, argv)
    return {"code": code, "out": out.getvalue(), "err": err.getvalue()}


def _run(program: ModuleType, argv: list[str]) -> int:
    logging.getLogger().handlers.clear()  # handlers of a client that was imported before
    sys.argv = list(argv)
    try:
        ended = program.main() if argv[0] == "cinder" else program.main(argv[1:])
        return int(ended or 0)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1


if __name__ == "__main__":
    main()
