"""Measure the commands for a lost cluster with very many backups in a real S3 server. Takes some minutes.

python -m tests.scale.manifests [BACKUPS]

It stores sealed manifests of 100 backups a volume, and runs the commands as processes.
The program ends with 1 if a run takes longer than LIMIT_SECONDS or more than LIMIT_BYTES resident.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cinderblock.api.layout import manifest_key
from cinderblock.api.mover import MoverOperation, StoreLocation
from cinderblock.archiver.archiver import run_backup
from cinderblock.store.base import ObjectStore
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.factory import open_store
from cinderblock.store.memory import MemoryStore
from tests.cluster import s3
from tests.support.mover.backups import KEYS, NOON, Backups, key_ring
from tests.support.mover.mover_pods import PROGRAM
from tests.support.mover.volumes_in_memory import MemorySource

BACKUPS: Final = 10_000
OF_A_VOLUME: Final = 100
LIMIT_SECONDS: Final = 60.0
LIMIT_BYTES: Final = 256 << 20
BUCKET, PREFIX = "lost", "some/where"


class Run(NamedTuple):
    """The result of one command: seconds, those of processor time, bytes resident at most, and lines of its output."""

    seconds: float
    processor: float
    resident: int
    lines: int


def manifests(count: int) -> Iterator[tuple[str, bytes]]:
    """Yield keys and contents of sealed manifests of small volumes."""
    for number in range(count):
        volume, backup = (str(uuid.UUID(int=value)) for value in (number // OF_A_VOLUME, (1 << 100) + number))
        store = MemoryStore()
        backups = Backups(store, key_ring("2024"))
        task = backups.task(MoverOperation.BACKUP, backup)
        facts = {
            "backup_name": f"daily-data-{number}",
            "namespace": f"team-{number // OF_A_VOLUME}",
            "volume_id": volume,
            "volume_name": "data",
            "volume_bytes": 1 << 30,
            "data_timestamp": NOON + timedelta(hours=number % OF_A_VOLUME),
        }
        key = manifest_key(PREFIX, volume, backup)
        changed = {"backup": task.backup.model_copy(update=facts), "manifest": key}
        run_backup(
            task.model_copy(update=changed), store, backups.keys, opener=lambda mode, path: nullcontext(MemorySource())
        )
        yield key, store.get(key)


def fill(store: ObjectStore, count: int) -> int:
    """Store the manifests, and return their bytes."""
    total = 0
    with ThreadPoolExecutor(4) as pool:
        futures = []
        for key, content in manifests(count):
            total += len(content)
            futures.append(pool.submit(store.put, key, content))
        for future in futures:
            future.result()
    return total


def run(words: list[str], environment: Mapping[str, str], output: Path) -> Run:
    """Run a command, with its output in a file."""
    began = time.monotonic()
    with output.open("wb") as file:
        process = subprocess.Popen([PROGRAM, *words], env=environment, stdout=file)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    assert os.waitstatus_to_exitcode(status) == 0, words
    return Run(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024, output.read_bytes().count(b"\n"))


def measure(count: int, scratch: Path) -> bool:
    """Run the commands. Return whether all keep to the limits."""
    key = scratch / "2024"
    key.write_bytes(base64.b64encode(KEYS["2024"]))
    is_within = True
    with s3.running("--keep-alive") as server:
        location = StoreLocation(endpoint_url=server.url, container=BUCKET, prefix=PREFIX, create_container=True)
        with closing(open_store(location, S3Credentials(server.access_key, server.secret_key))) as store:
            store.check()
            size = fill(store, count)
        print(f"{count} manifests of {size // count} bytes on average", flush=True)
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "AWS_ENDPOINT_URL": server.url,
        }
        at = ["--from", f"s3://{BUCKET}/{PREFIX}", "--encryption-key-file", str(key)]
        commands = (
            ["list", "--as-manifests"],
            ["list", "--as-manifests", "--newest"],
            ["key", "check", "--all"],
            ["key", "check"],
            ["recover", "plan"],
        )
        for words in commands:
            found = run([*words, *at], environment, scratch / "output")
            times = f"{found.seconds:6.1f} s, {found.processor:6.1f} s of a processor"
            print(f"{' '.join(words):<32} {times} {found.resident >> 20:5} MiB {found.lines:7} lines", flush=True)
            is_within &= found.seconds <= LIMIT_SECONDS and found.resident <= LIMIT_BYTES
    return is_within


def main(arguments: list[str]) -> int:
    """Run the program and return its exit code."""
    count = int(arguments[0]) if arguments else BACKUPS
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="cinderblock-manifests-") as scratch:
        return 0 if measure(count, Path(scratch)) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
