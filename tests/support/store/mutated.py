"""Every reader of mutated objects and answers gives the right result or an error, soon and in little memory."""

from __future__ import annotations

import contextlib
import random
import shutil
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Final, NamedTuple
from unittest import mock

from cinderblock.api.mover import StoreLocation
from cinderblock.errors import CinderblockError
from cinderblock.format.manifest.reader import read_summary
from cinderblock.repository.catalog import Catalog
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.memory import MemoryStore
from cinderblock.store.s3 import multipart
from cinderblock.store.s3 import store as store_module
from cinderblock.store.s3.store import S3Store
from tests.support.mover.backups import PREFIX, VOLUME, Backups, key_ring
from tests.support.mover.verifications import data, structure
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.store.hostile_server import Answer, hostile_server
from tests.support.store.mutations import mutate, mutate_objects

SECONDS: Final = 20.0
"""Most seconds of one case on a busy machine."""
MEMORY_BYTES: Final = 64 << 20
"""Most bytes that one case may hold."""


@contextmanager
def bounded(name: str) -> Iterator[None]:
    """Check the seconds and the memory of a case."""
    tracemalloc.start()
    began = time.monotonic()
    try:
        yield
        held, seconds = tracemalloc.get_traced_memory()[1], time.monotonic() - began
    finally:
        tracemalloc.stop()
    assert held < MEMORY_BYTES, f"{name} held {held >> 20} MiB"
    assert seconds < SECONDS, f"{name} took {seconds:.1f} s"


def _content(generation: int, number: int) -> bytes:
    """Return the content of a file. Each generation changes one file."""
    changed = generation if number == generation else 0
    return random.Random(100 * number + changed).randbytes(300) + b"z" * 300


@cache
def _originals(sealed: bool) -> tuple[Backups, dict[str, bytes]]:
    """Return two generations of a volume, and their objects."""
    backups = Backups(MemoryStore(), key_ring() if sealed else None)
    for generation in range(2):
        source = MemorySource()
        for number in range(4):
            stamp = 1 + (generation if number == generation else 0)
            source.add(b"small%d" % number, (0, _content(generation, number)), stamp=stamp)
        backups.back_up(source, f"b{generation}", f"b{generation - 1}" if generation else None)
    return backups, {item.key: backups.store.get(item.key) for item in backups.store.list("")}


def check_objects(seed: int, target: Path) -> None:
    """Mutate objects, and let every reader read them. Restored files are right, or an error is raised."""
    rnd = random.Random(seed)
    backups, objects = _originals(bool(seed % 2))
    damaged = Backups(MemoryStore(), backups.keys)
    damaged.pins = backups.pins
    changes = dict(mutate_objects(objects, rnd))
    for key, body in (objects | changes).items():
        if body is not None:
            damaged.store.put(key, body)
    with bounded(f"objects, seed {seed}"):
        for backup in ("b0", "b1"):
            read = partial(damaged.store.get, damaged.manifest_key(backup))
            with contextlib.suppress(CinderblockError):
                read_summary(read, damaged.keys, damaged.expected(backup))
            with contextlib.suppress(CinderblockError):
                damaged.verify(backup)
            with contextlib.suppress(CinderblockError):
                structure(damaged, backup)
            with contextlib.suppress(CinderblockError):
                data(damaged, backup)
            _check_restore(damaged, backup, target / backup)
        catalog = Catalog(damaged.store, PREFIX, damaged.keys)
        catalog.read_entries(catalog.list_backups(VOLUME))
        references = catalog.references(VOLUME)
        with contextlib.suppress(CinderblockError):
            references.read_all()
            references.needs("b0")


def _check_restore(backups: Backups, backup: str, target: Path) -> None:
    target.mkdir(parents=True)
    try:
        backups.restore(backup, target)
    except CinderblockError:
        shutil.rmtree(target)
        return
    for number in range(4):
        assert (target / f"small{number}").read_bytes() == _content(int(backup[1:]), number)
    shutil.rmtree(target)


_LISTING: Final = (
    b"<ListBucketResult><IsTruncated>false</IsTruncated>"
    + b"".join(b"<Contents><Key>k%d</Key><Size>%d</Size></Contents>" % (number, number) for number in range(20))
    + b"</ListBucketResult>"
)
_ERROR: Final = b"<Error><Code>NoSuchKey</Code><Message>none</Message></Error>"
_DELETED: Final = b"<DeleteResult><Deleted><Key>key</Key></Deleted></DeleteResult>"


def _answer(status: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), b'ETag: "x"', b"Connection: close", *headers]
    return b"\r\n".join([*lines, b"", body])


_VERSIONS: Final = (
    b"<ListVersionsResult><IsTruncated>true</IsTruncated><NextKeyMarker>k1</NextKeyMarker>"
    b"<NextVersionIdMarker>1</NextVersionIdMarker>"
    + b"".join(b"<Version><Key>k%d</Key><VersionId>1</VersionId></Version>" % number for number in range(5))
    + b"</ListVersionsResult>"
)
_VERSIONING: Final = b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
_LOCK: Final = (
    b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
    b"<Mode>GOVERNANCE</Mode><Days>30</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
)
_LIFECYCLE: Final = (
    b"<LifecycleConfiguration><Rule><ID>old</ID><Status>Enabled</Status><Filter><Prefix>k</Prefix></Filter>"
    b"<Expiration><Days>30</Days></Expiration></Rule></LifecycleConfiguration>"
)
_LOCKED: Final = (b"x-amz-object-lock-mode: COMPLIANCE", b"x-amz-object-lock-retain-until-date: 2030-01-01T00:00:00Z")
_UPLOAD_STEPS: Final = {
    b"GET": b"<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
    b"POST /volumebackups/key?uploads": (
        b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
    ),
    b"PUT": b"",
    b"POST /volumebackups/key?uploadId": (
        b"<CompleteMultipartUploadResult><Key>key</Key><ETag>x</ETag></CompleteMultipartUploadResult>"
    ),
    b"DELETE": b"",
}
"""The beginnings of the requests of an upload in parts, and their answers."""


def _upload_in_parts(store: S3Store) -> None:
    with (
        mock.patch.object(store_module, "MULTIPART_THRESHOLD_BYTES", 1000),
        mock.patch.object(multipart, "PART_BYTES", 8 << 10),
    ):
        store.put("key", bytes(16 << 10))


def _delete_one(store: S3Store) -> None:
    store._deleter._delete_one("key")


class Exchange(NamedTuple):
    """An honest answer, the call that it answers, and how the request begins that gets it."""

    answer: bytes
    call: Callable[[S3Store], object]
    line: bytes = b""


EXCHANGES: Final = [
    Exchange(_answer(b"200 OK", _LISTING), lambda store: list(store.list("k"))),
    Exchange(
        _answer(b"206 Partial Content", b"x" * 100, b"Content-Range: bytes 5-104/300"),
        lambda store: store.get("key", 5, 100),
    ),
    Exchange(_answer(b"200 OK", b"x" * 300), lambda store: store.get("key", -20, 20)),
    Exchange(_answer(b"404 Not Found", _ERROR), lambda store: store.get("key", 0, 10)),
    Exchange(
        _answer(b"416 Range Not Satisfiable", _ERROR, b"Content-Range: bytes */5"), lambda store: store.get("key", 9)
    ),
    Exchange(_answer(b"503 Slow Down", _ERROR, b"Retry-After: 3"), lambda store: store.put("key", b"content")),
    Exchange(_answer(b"200 OK", b""), lambda store: store.put("key", bytes(2 << 20))),
    Exchange(_answer(b"200 OK", _DELETED), lambda store: store.delete(["key"])),
    Exchange(_answer(b"204 No Content", b""), _delete_one),
    Exchange(_answer(b"200 OK", _LISTING), lambda store: store.check()),
    Exchange(_answer(b"200 OK", _VERSIONING), lambda store: store.retention.versioning()),
    Exchange(_answer(b"200 OK", _LOCK), lambda store: store.retention.object_lock()),
    Exchange(_answer(b"200 OK", _LIFECYCLE), lambda store: store.retention.lifecycle()),
    Exchange(_answer(b"200 OK", _VERSIONS), lambda store: store.retention.versions("k", 2000)),
    Exchange(_answer(b"200 OK", b"", *_LOCKED), lambda store: store.retention.inspect("key")),
    *(Exchange(_answer(b"200 OK", body), _upload_in_parts, line) for line, body in _UPLOAD_STEPS.items()),
]


def check_answer(seed: int) -> None:
    """Mutate an answer. The call returns no more than was requested, or raises an error of Cinderblock."""
    rnd = random.Random(seed)
    exchange = EXCHANGES[seed % len(EXCHANGES)]
    mutated = mutate(exchange.answer, rnd)

    def respond(head: bytes) -> Answer:
        if head.startswith(exchange.line):
            yield mutated
        else:
            line = next((line for line in _UPLOAD_STEPS if head.startswith(line)), b"GET")
            yield _answer(b"200 OK", _UPLOAD_STEPS[line])

    with hostile_server(respond) as server:
        location = StoreLocation(endpoint_url=server.url, container="volumebackups")
        store = S3Store(location, S3Credentials("AKIAEXAMPLE", "very/secret"), seconds_per_call=0.5)
        with closing(store), bounded(f"answer, seed {seed}"), contextlib.suppress(CinderblockError):
            result = exchange.call(store)
            assert not isinstance(result, bytes) or len(result) <= 100
