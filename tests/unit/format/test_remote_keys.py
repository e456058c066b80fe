"""The keys of a broker behave like a key ring, and are asked for as rarely as possible."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from cinderblock.errors import IntegrityError, InvalidInput, KeyUnavailable, SealedTooLate, WrongKey
from cinderblock.format.crypto import remote_keys
from cinderblock.format.crypto.keyring import DataKey, KeyRing, WrappedKey
from cinderblock.format.crypto.keys import Keys
from cinderblock.format.crypto.remote_keys import OpenedKey, RemoteKeyRing

OWNER = ("volume", "backup")
MARK = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)


class Broker:
    """The keys of a broker, with the number of calls."""

    def __init__(self) -> None:
        self.ring = KeyRing({"old": b"o" * 32, "new": b"n" * 32}, "new", "the Secret", {"old": MARK})
        self.made = 0
        self.opened = 0

    def new(self) -> OpenedKey:
        self.made += 1
        data_key = DataKey.random()
        return OpenedKey(data_key, self.ring.wrap(data_key, OWNER))

    def unwrap(self, wrapped: WrappedKey, owner: tuple[str, str], created_at: datetime | None) -> DataKey:
        self.opened += 1
        if created_at is not None:
            self.ring.check_age(wrapped, owner, created_at, f"backup {owner[1]}")
        return self.ring.unwrap(wrapped, owner)


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def keys(broker: Broker) -> RemoteKeyRing:
    return RemoteKeyRing(broker.new, broker.unwrap)


def sealed_by(key_id: str, owner: tuple[str, str] = OWNER) -> tuple[DataKey, WrappedKey]:
    """Return a data key that an earlier run has wrapped."""
    data_key = DataKey.random()
    return data_key, KeyRing({"old": b"o" * 32, "new": b"n" * 32}, "new").wrap(data_key, owner, key_id)


def test_both_kinds_are_keys(broker: Broker, keys: RemoteKeyRing) -> None:
    both: list[Keys] = [broker.ring, keys]
    for each in both:
        data_key = each.new_data_key()
        wrapped = each.wrap(data_key, OWNER)
        assert wrapped.key_id == each.active == "new"
        assert each.unwrap(wrapped, OWNER).reveal() == data_key.reveal()


def test_run_has_one_new_data_key(broker: Broker, keys: RemoteKeyRing) -> None:
    with ThreadPoolExecutor(8) as pool:
        secrets = {key.reveal() for key in pool.map(lambda _: keys.new_data_key(), range(32))}
    assert len(secrets) == 1
    assert keys.wrap(keys.new_data_key(), OWNER) == keys.wrap(keys.new_data_key(), OWNER)
    assert (broker.made, broker.opened) == (1, 0)


def test_new_data_key_is_opened_by_the_broker_once(broker: Broker, keys: RemoteKeyRing) -> None:
    """Reading a backup back proves that the broker can open it, so nothing else may answer."""
    wrapped = keys.wrap(keys.new_data_key(), OWNER)
    for _ in range(3):
        keys.unwrap(wrapped, OWNER)
        keys.check_age(wrapped, OWNER, MARK + DAY, "m")
    assert broker.opened == 1


def test_key_of_an_earlier_run_is_wrapped_as_before(broker: Broker, keys: RemoteKeyRing) -> None:
    _, wrapped = sealed_by("new")
    assert keys.active == wrapped.key_id
    assert keys.wrap(keys.unwrap(wrapped, OWNER), OWNER) == wrapped
    assert (broker.made, broker.opened) == (1, 1)


@pytest.mark.parametrize(("key_id", "owner"), [("old", OWNER), ("new", ("volume", "other"))])
def test_other_keys_are_not_wrapped(keys: RemoteKeyRing, key_id: str, owner: tuple[str, str]) -> None:
    _, wrapped = sealed_by(key_id, owner)
    opened = keys.unwrap(wrapped, owner)
    with pytest.raises(KeyUnavailable, match="backup"):
        keys.wrap(opened, OWNER)
    with pytest.raises(KeyUnavailable):
        keys.wrap(DataKey.random(), OWNER)


def test_key_that_does_not_open_is_named(keys: RemoteKeyRing) -> None:
    _, wrapped = sealed_by("new")
    with pytest.raises(WrongKey) as caught:
        keys.unwrap(wrapped, ("volume", "other"))
    assert caught.value.key_id == "new"


def test_missing_key_is_unavailable(keys: RemoteKeyRing) -> None:
    _, wrapped = sealed_by("new")
    with pytest.raises(KeyUnavailable):
        keys.unwrap(wrapped._replace(key_id="lost"), OWNER)


def test_key_id_that_the_broker_rejects_is_unavailable(broker: Broker) -> None:
    def reject(*_: object) -> DataKey:
        raise InvalidInput("The body is malformed at wrapped.keyId.")

    _, wrapped = sealed_by("new")
    with pytest.raises(KeyUnavailable, match="keyId"):
        RemoteKeyRing(broker.new, reject).unwrap(wrapped._replace(key_id="k" * 500), OWNER)


def test_impossible_length_is_not_sent(broker: Broker, keys: RemoteKeyRing) -> None:
    _, wrapped = sealed_by("new")
    with pytest.raises(IntegrityError, match="length"):
        keys.unwrap(wrapped._replace(sealed=b""), OWNER)
    assert broker.opened == 0


def test_read_only_key_opens_nothing_newer_than_its_mark(broker: Broker, keys: RemoteKeyRing) -> None:
    _, wrapped = sealed_by("old")
    keys.unwrap(wrapped, OWNER)
    for _ in range(3):
        keys.check_age(wrapped, OWNER, MARK - DAY, "manifest")
    assert broker.opened == 2
    with pytest.raises(SealedTooLate, match=r"^manifest: "):
        keys.check_age(wrapped, OWNER, MARK + DAY, "manifest")


def test_known_keys_are_bounded(broker: Broker, keys: RemoteKeyRing, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_keys, "CACHED_KEYS", 10)
    for number in range(25):
        owner = ("volume", str(number))
        _, wrapped = sealed_by("new", owner)
        keys.unwrap(wrapped, owner)
        keys.unwrap(wrapped, owner)
        keys.check_age(wrapped, owner, MARK, "m")
    assert len(keys._opened) <= 10
    assert len(keys._ages) <= 10


def test_representation_shows_no_key(keys: RemoteKeyRing) -> None:
    made = keys.new_data_key()
    assert repr(made.reveal()) not in f"{keys!r} {keys._new_key!r}"
