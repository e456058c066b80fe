"""Every command as a process: signals in the middle of its work, descriptors that are closed, output that goes nowhere.

The commands for people work on a real S3 server, behind a relay that holds one request back: so the signal certainly
comes in the middle.
"""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, combinations
from pathlib import Path

import pytest

from cinderblock.cli.exit_codes import BROKEN_PIPE, NO_OUTPUT, PERMANENT, USAGE
from cinderblock.cli.main import COMMANDS
from tests.contract.relay import Relay, relay
from tests.contract.s3_server import S3Server
from tests.support.mover.mover_pods import PROGRAM
from tests.support.variations import pairs_in_turn, some

pytestmark = pytest.mark.integration

SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
STORE = "s3://stopped/prefix"
SECONDS = 60
"""For how long the tests wait for what must happen."""
CLOSED = list(chain.from_iterable(combinations((0, 1, 2), count) for count in (1, 2, 3)))
"""Every combination of closed standard descriptors."""


@dataclass(frozen=True)
class Made:
    """The objects of the commands: a directory, a backup of it, two keys.

    Attributes:
        tree: the directory.
        backup: id of the backup.
        volume: id of its volume.
        keys: options with both keys.
        environment: variables of a process that reaches the server directly.
    """

    tree: Path
    backup: str
    volume: str
    keys: tuple[str, ...]
    environment: Mapping[str, str]

    def run(
        self, *words: str, stdout: int = subprocess.PIPE, stderr: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [PROGRAM, *words],
            env=self.environment,
            stdout=stdout,
            stderr=stderr,
            text=True,
            check=False,
            timeout=SECONDS,
        )

    def run_closed(self, closed: Sequence[int], *words: str) -> int:
        """Run a command without some of its standard descriptors. Return its exit code."""
        closing = " ".join(f"{number}{'<' if number == 0 else '>'}&-" for number in closed)
        shell = ["sh", "-c", f'exec "$@" {closing}', "sh", PROGRAM, *words]
        open_ones: dict[str, int] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.run(shell, env=self.environment, check=False, timeout=SECONDS, **open_ones).returncode

    def environment_of(self, url: str) -> dict[str, str]:
        """Return the variables of a process that reaches the server at another address."""
        return {**self.environment, "AWS_ENDPOINT_URL": url}


@pytest.fixture(scope="module")
def made(server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Made:
    tmp_path = tmp_path_factory.mktemp("made")
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(8):
        (tree / f"file-{number}").write_bytes(os.urandom(300_000))
    keys: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(base64.b64encode(os.urandom(32)))
        keys += ["--encryption-key-file", f"{name}={tmp_path / name}"]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CINDERBLOCK_"))},
        "AWS_ACCESS_KEY_ID": server.credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": server.credentials.secret_key,
        "AWS_ENDPOINT_URL": server.url,
        "KUBECONFIG": os.devnull,
    }
    empty = Made(tree, "", f"volume-{tmp_path.name}", tuple(keys), environment)
    return replace(empty, backup=backed_up(empty))


def backed_up(made: Made) -> str:
    """Return the id of a new full backup of the directory."""
    first = (*made.keys, "--active-key", "a", "--volume-id", made.volume)
    done = made.run("backup", str(made.tree), "--to", STORE, "--json", *first)
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["backupId"])


@contextmanager
def started(
    words: Sequence[str], environment: Mapping[str, str], *, ignored: str = ""
) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and end it with the block.

    A command inherits ignored signals, for example from nohup, and respects them. So the tests set all signals to their
    defaults, except the ``ignored`` one.
    """
    signals = ["--default-signal", *([f"--ignore-signal={ignored}"] if ignored else [])]
    with subprocess.Popen(
        ["env", *signals, PROGRAM, *words], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def stopped(
    words: Sequence[str], environment: Mapping[str, str], number: int, line: Relay, *, ignored: str = ""
) -> tuple[int, str]:
    """Send a signal to a command while a request is held back. Return its exit code and its standard error."""
    with started(words, environment, ignored=ignored) as process:
        assert line.stalled.wait(SECONDS)
        process.send_signal(number)
        line.resume()
        _, err = process.communicate(timeout=SECONDS)
    return process.returncode, err


IN_THE_MIDDLE: dict[str, tuple[str, Callable[[Made, Path], list[str]]]] = {
    "backup": (
        r"PUT /stopped/prefix/packs/",
        lambda made, target: ["backup", str(made.tree), "--to", STORE, "--volume-id", "v-new", *made.keys],
    ),
    "restore": (
        r"GET /stopped/prefix/packs/",
        lambda made, target: ["restore", made.backup, "--from", STORE, "--target", str(target), *made.keys],
    ),
    "list": (r"GET /stopped/prefix/backups/", lambda made, target: ["list", "--from", STORE, *made.keys]),
    "key": (r"GET /stopped/prefix/backups/", lambda made, target: ["key", "check", "--from", STORE, *made.keys]),
    "retention": (
        r"GET /stopped/prefix/backups/",
        lambda made, target: ["retention", "preview", "--from", STORE, "--keep-last", "1", *made.keys],
    ),
    "recover": (
        r"GET /stopped/prefix/backups/",
        lambda made, target: ["recover", "plan", "--from", STORE, *made.keys],
    ),
    "rescue": (
        r"GET /stopped\?versioning",
        lambda made, target: ["rescue", "--at", "2026-05-04T03:00:00Z", "--from", STORE],
    ),
    "show": (r"GET /stopped/prefix/backups/", lambda made, target: ["show", made.backup, "--from", STORE, *made.keys]),
    "verify": (
        r"GET /stopped/prefix/packs/",
        lambda made, target: ["verify", made.backup, "--from", STORE, *made.keys],
    ),
    "delete": (
        r"(DELETE|POST) /stopped",
        lambda made, target: ["delete", backed_up(made), "--from", STORE, *made.keys],
    ),
    "rewrap": (
        r"PUT /stopped/prefix/backups/",
        lambda made, target: ["rewrap", backed_up(made), "--from", STORE, "--active-key", "b", *made.keys],
    ),
}
"""The request that is held back, and the arguments, by command for people."""
SUCCESSFUL = [name for name in IN_THE_MIDDLE if name not in {"recover", "rescue"}]
"""The commands that succeed. The backups were made from the command line, so no claim can be recovered. The bucket
keeps no versions, so nothing can be rescued.
"""


def test_table_has_every_command_that_uses_a_store() -> None:
    with_a_cluster = {"release-finalizers", "operator", "gateway", "broker", "embedded-store"}
    assert IN_THE_MIDDLE.keys() | with_a_cluster | {"mover"} == COMMANDS.keys()


@pytest.mark.parametrize(("name", "number"), pairs_in_turn([*IN_THE_MIDDLE], SIGNALS), ids=str)
def test_signal_ends_a_command_with_its_code_and_a_sentence(
    made: Made, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    pattern, arguments = IN_THE_MIDDLE[name]
    with relay(made.environment["AWS_ENDPOINT_URL"]) as line:
        line.stall_at = re.compile(pattern.encode())
        words = arguments(made, tmp_path / "target")
        code, err = stopped(words, made.environment_of(line.url), number, line)
    assert code == 128 + number, err
    assert err.count(f"cinderblock {name}: stopped by {number.name}\n") == 1
    assert "Traceback" not in err
    if name == "restore":
        assert ("do not use" in err) == (tmp_path / "target").exists()
    if name == "delete":
        assert f"--volume-id {made.volume}" in err


def test_backup_that_is_stopped_can_be_resumed_and_deleted(made: Made, tmp_path: Path) -> None:
    pattern, arguments = IN_THE_MIDDLE["backup"]
    with relay(made.environment["AWS_ENDPOINT_URL"]) as line:
        line.stall_at = re.compile(pattern.encode())
        words = arguments(made, tmp_path)
        _, err = stopped(words, made.environment_of(line.url), signal.SIGTERM, line)
    first, *_, last = err.splitlines()
    (backup,) = re.findall(r"started backup (\S+) of volume v-new", first)
    assert f"--resume {backup}" in last
    assert made.run(*words, "--resume", backup).returncode == 0
    assert made.run("delete", backup, "--volume-id", "v-new", "--from", STORE, *made.keys).returncode == 0


@pytest.mark.parametrize("as_json", [False, True])
def test_backup_that_is_killed_has_told_its_id_before(made: Made, tmp_path: Path, *, as_json: bool) -> None:
    pattern, arguments = IN_THE_MIDDLE["backup"]
    with relay(made.environment["AWS_ENDPOINT_URL"]) as line:
        line.stall_at = re.compile(pattern.encode())
        words = [*arguments(made, tmp_path), *["--json"] * as_json]
        code, err = stopped(words, made.environment_of(line.url), signal.SIGKILL, line)
    assert code == -signal.SIGKILL
    first = err.splitlines()[0]
    backup = json.loads(first)["backupId"] if as_json else first.split("started backup ")[1].split()[0]
    assert made.run(*words, "--resume", backup).returncode == 0


def test_deletion_that_is_stopped_can_be_completed(made: Made, tmp_path: Path) -> None:
    pattern, arguments = IN_THE_MIDDLE["delete"]
    with relay(made.environment["AWS_ENDPOINT_URL"]) as line:
        line.stall_at = re.compile(pattern.encode())
        words = arguments(made, tmp_path)
        stopped(words, made.environment_of(line.url), signal.SIGTERM, line)
    assert made.run(*words, "--volume-id", made.volume).returncode in (0, 3)
    listed = made.run("list", "--from", STORE, "--json", "--volume-id", made.volume, *made.keys)
    assert listed.returncode == 0
    assert words[1] not in listed.stdout


def test_signal_that_the_caller_ignores_stays_ignored(made: Made) -> None:
    pattern, arguments = IN_THE_MIDDLE["list"]
    with relay(made.environment["AWS_ENDPOINT_URL"]) as line:
        line.stall_at = re.compile(pattern.encode())
        words = arguments(made, made.tree)
        code, _ = stopped(words, made.environment_of(line.url), signal.SIGHUP, line, ignored="HUP")
    assert code == 0


@contextmanager
def silent_server() -> Iterator[tuple[str, threading.Event]]:
    """Run a server that accepts connections and never answers. Yield its URL, and an event after the first one."""
    accepted: list[socket.socket] = []
    connected = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while True:
                try:
                    accepted.append(listener.accept()[0])
                except OSError:
                    return
                connected.set()

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", connected
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in accepted:
                one.close()


def kubeconfig(path: Path, url: str) -> Path:
    """Write a kubeconfig for a server."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
    path.write_text(json.dumps(config))
    return path


WITH_A_CLUSTER = {
    "release-finalizers": ["release-finalizers"],
    "embedded-store": [
        *("embedded-store", "demo", "--accounts-secret", "x/y", "--endpoint-url", "http://s3.invalid"),
    ],
}


@pytest.mark.parametrize(("name", "number"), pairs_in_turn([*WITH_A_CLUSTER], SIGNALS), ids=str)
def test_signal_ends_a_command_that_waits_for_the_api_server(
    made: Made, tmp_path: Path, name: str, number: signal.Signals
) -> None:
    with silent_server() as (url, connected):
        environment = {**made.environment, "KUBECONFIG": str(kubeconfig(tmp_path / "kubeconfig", url))}
        with started(WITH_A_CLUSTER[name], environment) as process:
            assert connected.wait(SECONDS)
            process.send_signal(number)
            _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 128 + number, err
    assert err.count(f"stopped by {number.name}\n") == 1
    assert "Traceback" not in err


def contents(tree: Path) -> dict[str, bytes]:
    """Return the content of each file of a directory."""
    return {path.name: path.read_bytes() for path in tree.iterdir()}


@pytest.mark.parametrize("closed", some((closed,) for closed in CLOSED), ids=str)
def test_closed_descriptors_change_no_backup_and_no_restore(
    made: Made, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    target = tmp_path / "target"
    (made.tree / "file-0").write_bytes(os.urandom(300_000))
    words = ("backup", str(made.tree), "--to", STORE, "--volume-id", made.volume, *made.keys)
    assert made.run_closed(closed, *words, "--incremental", "--resume", f"closed-{tmp_path.name}") == 0
    restore = ("restore", f"closed-{tmp_path.name}", "--from", STORE, "--target", str(target), *made.keys)
    assert made.run_closed(closed, *restore) == 0
    assert contents(target) == contents(made.tree)


@pytest.mark.parametrize("name", ["backup", "restore"])
def test_no_file_takes_the_place_of_a_closed_descriptor(made: Made, tmp_path: Path, name: str) -> None:
    pattern, arguments = IN_THE_MIDDLE[name]
    with relay(made.environment["AWS_ENDPOINT_URL"]) as line:
        line.stall_at = re.compile(pattern.encode())
        shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", PROGRAM, *arguments(made, tmp_path / "target")]
        with subprocess.Popen(shell, env=made.environment_of(line.url)) as process:
            assert line.stalled.wait(SECONDS)
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            places = {
                (pid, number): os.readlink(f"/proc/{pid}/fd/{number}")
                for pid in (str(process.pid), *children)
                for number in (0, 1, 2)
                if os.path.exists(f"/proc/{pid}/fd/{number}")
            }
            line.resume()
            assert process.wait(SECONDS) == 0
    assert len(places) >= 3
    assert set(places.values()) == {os.devnull}


FULL_OUTPUT = [(name, ["--help"]) for name in COMMANDS] + [("", ["--help"]), ("", ["--version"])]


@pytest.mark.parametrize(("name", "options"), some(FULL_OUTPUT, step=5), ids=str)
def test_help_that_could_not_be_written_is_no_success(made: Made, name: str, options: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = made.run(*[name] * bool(name), *options, stdout=full.fileno())
    assert done.returncode == NO_OUTPUT
    assert done.stderr.count("\n") == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("name", some(SUCCESSFUL))
def test_result_that_could_not_be_written_is_no_success(made: Made, tmp_path: Path, name: str) -> None:
    words = IN_THE_MIDDLE[name][1](made, tmp_path / "target")
    with open("/dev/full", "wb") as full:
        done = made.run(*words, stdout=full.fileno())
    assert done.returncode == NO_OUTPUT, done.stderr
    assert done.stderr.count("cannot write the output: No space left on device. The command has succeeded.\n") == 1
    assert "Traceback" not in done.stderr
    if name == "backup":
        (backup,) = re.findall(r"started backup (\S+) of", done.stderr)
        assert made.run("verify", backup, "--from", STORE, *made.keys).returncode == 0


def test_failed_command_without_an_output_keeps_its_exit_code(made: Made, tmp_path: Path) -> None:
    with open("/dev/full", "wb") as full:
        done = made.run(*IN_THE_MIDDLE["recover"][1](made, tmp_path), stdout=full.fileno())
    assert done.returncode == PERMANENT, done.stderr
    assert done.stderr.count("No space left on device. The command has ended with exit code 3.\n") == 1


@pytest.mark.parametrize("name", some(SUCCESSFUL, 1))
def test_reader_that_has_gone_is_no_success(made: Made, tmp_path: Path, name: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = made.run(*IN_THE_MIDDLE[name][1](made, tmp_path / "target"), stdout=writer)
    finally:
        os.close(writer)
    assert done.returncode == BROKEN_PIPE, done.stderr
    assert done.stderr.count("cannot write the output: its reader has gone") == (
        name not in {"list", "show", "retention"}
    )
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("name", "where"), some([("backup", "a pipe"), *((name, "/dev/full") for name in SUCCESSFUL)]))
def test_messages_that_could_not_be_written_end_no_work(made: Made, tmp_path: Path, name: str, where: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    if where == "/dev/full":
        os.close(writer)
        writer = os.open(where, os.O_WRONLY)
    try:
        done = made.run(*IN_THE_MIDDLE[name][1](made, tmp_path / "target"), stderr=writer)
    finally:
        os.close(writer)
    assert done.returncode == 0
    assert done.stdout


def test_stream_of_manifests_without_a_reader_is_no_success(made: Made) -> None:
    words = ("list", "--as-manifests", "--from", STORE, *made.keys)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = made.run(*words, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (BROKEN_PIPE, "")
    with open("/dev/full", "wb") as full:
        done = made.run(*words, stdout=full.fileno())
    assert done.returncode == NO_OUTPUT
    assert "No space left on device" in done.stderr


def test_failure_keeps_its_exit_code_if_it_could_not_be_written(made: Made) -> None:
    with open("/dev/full", "wb") as full:
        words = ("show", "ffffffff", "--from", STORE, "--json")
        done = made.run(*words, stdout=full.fileno())
        assert done.returncode == PERMANENT
        assert "Traceback" not in done.stderr
        assert made.run(*words, stdout=full.fileno(), stderr=full.fileno()).returncode == PERMANENT
        assert made.run("backup", "--nothing", stdout=full.fileno(), stderr=full.fileno()).returncode == USAGE


@pytest.mark.parametrize("name", some(["operator", "gateway", "release-finalizers", "mover", "embedded-store"]))
def test_command_of_a_pod_fails_with_a_sentence_whatever_its_output(made: Made, name: str) -> None:
    without_files = ["gateway", "--tls-certificate-file=/nowhere/crt", "--tls-key-file=/nowhere/key"]
    words = WITH_A_CLUSTER.get(name) or (without_files if name == "gateway" else [name])
    plain = made.run(*words)
    assert plain.returncode not in (0, 120)
    assert "Traceback" not in plain.stderr
    for closed in ((0,), (0, 1, 2)):
        assert made.run_closed(closed, *words) == plain.returncode
    with open("/dev/full", "wb") as full:
        assert made.run(*words, stdout=full.fileno(), stderr=full.fileno()).returncode == plain.returncode
