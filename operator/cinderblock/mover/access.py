"""How a mover reaches its store and its keys: by mounted Secrets, or through the broker."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

from cinderblock.api.broker import TOKEN_DIRECTORY, TOKEN_FILE, BrokerLocation
from cinderblock.api.mover import TARGET_PREFIX, MoverOperation, MoverTask, StoreLocation
from cinderblock.api.v1alpha1.store import MoverAccess
from cinderblock.errors import AccessDenied
from cinderblock.format.crypto.keyring import KeyRing
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.remote_keys import RemoteKeyRing
from cinderblock.store.base import ObjectStore
from cinderblock.store.broker.client import BrokerClient
from cinderblock.store.broker.session import SessionSource
from cinderblock.store.credentials import Credentials, RemoteSigner, read_credentials
from cinderblock.store.rotating import RotatingStore

StoreOpener = Callable[[StoreLocation, Credentials, str | None], ObjectStore]
"""Opens a store with credentials or a signer, and the path of a CA file."""


class Access(NamedTuple):
    """Store and keys of an operation.

    Attributes:
        store: the store, without any count.
        keys: its keys; None if it has none.
    """

    store: ObjectStore
    keys: Keys | None


@contextmanager
def open_access(task: MoverTask, secrets_directory: str, opener: StoreOpener) -> Iterator[Access]:
    """Open the store of a task and its keys. The task decides whether that needs the broker.

    Args:
        task: the task.
        secrets_directory: holds credentials/, encryption/ and ca/, or broker/ with a token.
        opener: opens the store.

    Raises InvalidInput, AccessDenied and KeyUnavailable; with session credentials also what the broker raises.
    """
    with ExitStack() as stack:
        if task.broker is None:
            access = _with_secrets(task, secrets_directory, opener)
        else:
            access = _with_broker(task.store, task.broker, secrets_directory, opener, stack)
        stack.callback(access.store.close)
        yield access


@contextmanager
def open_target(location: StoreLocation, secrets_directory: str, opener: StoreOpener) -> Iterator[Access]:
    """Open the store that gets copies, whose Secrets have directories of their own.

    Raises InvalidInput, AccessDenied and KeyUnavailable.
    """
    access = _with_mounted(location, secrets_directory, opener, prefix=TARGET_PREFIX)
    try:
        yield access
    finally:
        access.store.close()


def _with_secrets(task: MoverTask, secrets_directory: str, opener: StoreOpener) -> Access:
    active = task.active_key if task.operation is MoverOperation.BACKUP else None
    return _with_mounted(task.store, secrets_directory, opener, active)


def _with_mounted(
    location: StoreLocation, secrets_directory: str, opener: StoreOpener, active: str | None = None, prefix: str = ""
) -> Access:
    """Open a store with the Secrets in directories whose names begin with ``prefix``."""
    directory = partial(os.path.join, secrets_directory)
    keys = read_key_ring(directory(f"{prefix}encryption"), active)
    read = partial(read_credentials, directory(f"{prefix}credentials"))
    ca_file = directory(f"{prefix}ca", "ca.crt")
    trusted = ca_file if os.path.exists(ca_file) else None
    return Access(RotatingStore(read, lambda credentials: opener(location, credentials, trusted)), keys)


def _with_broker(
    location: StoreLocation, broker: BrokerLocation, secrets_directory: str, opener: StoreOpener, stack: ExitStack
) -> Access:
    client = BrokerClient(broker, os.path.join(secrets_directory, TOKEN_DIRECTORY, TOKEN_FILE))
    stack.callback(client.close)
    trusted = stack.enter_context(_file_of(broker.ca_certificates)) if broker.ca_certificates else None
    # The operator creates the bucket of a shared store. No mover may.
    location = location.model_copy(update={"create_container": False})
    keys = RemoteKeyRing(client.new_data_key, client.unwrap) if broker.encrypts else None
    if broker.access is MoverAccess.SIGNED_REQUESTS:
        return Access(opener(location, RemoteSigner(client.sign), trusted), keys)
    session = SessionSource(client.credentials, client.credentials_once)
    opened = RotatingStore(
        session.read, lambda credentials: opener(location, credentials, trusted), renew=session.renew
    )
    return Access(opened, keys)


@contextmanager
def _file_of(text: str) -> Iterator[str]:
    """Yield the path of a file with this text. It is in memory, because a mover may write nothing in its pod."""
    descriptor = os.memfd_create("ca.crt")
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(text.encode())
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def read_key_ring(directory: str, active: str | None) -> KeyRing | None:
    """Return the key ring from the files of a mounted encryption Secret; None if there is no such directory.

    Raises InvalidInput for a malformed key, AccessDenied for a file that cannot be read, and KeyUnavailable if
    ``active`` is not among the keys.
    """
    try:
        # The kubelet's own entries (..data and the directory it points to) begin with two dots.
        names = [name for name in os.listdir(directory) if not name.startswith("..")]
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unreadable_key(directory, error) from error
    return KeyRing.from_secret({name: _read_key(os.path.join(directory, name)) for name in names}, active)


def _read_key(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise _unreadable_key(path, error) from error


def _unreadable_key(path: str, error: OSError) -> AccessDenied:
    return AccessDenied(
        f"Cannot read encryption key {path}: {error.strerror}. Let the mover's user read the encryption Secret."
    )
