"""What is kept of a list that is read page by page: not for long, not for others, not without end."""

from __future__ import annotations

import pytest

from cinderblock.gateway.rest.list_cache import CACHE_SECONDS, CachedTail, ListCache, key_of


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rest(read_at: float = 0.0, items: int = 1) -> CachedTail:
    return CachedTail([(str(number), b"x" * 900) for number in range(items)], items, read_at)


def test_a_rest_is_given_once() -> None:
    walks = ListCache(clock=Clock())
    walks.keep("shop", "key", rest())
    assert walks.take("shop", "key") == rest()
    assert walks.take("shop", "key") is None


def test_a_rest_is_as_old_as_the_first_page_and_then_gone() -> None:
    clock = Clock()
    walks = ListCache(clock=clock)
    walks.keep("shop", "key", rest())
    clock.now = CACHE_SECONDS + 0.1
    assert walks.take("shop", "key") is None


def test_a_change_in_the_project_ends_its_walks_and_no_others() -> None:
    walks = ListCache(clock=Clock())
    walks.keep("shop", "key", rest())
    walks.keep("mail", "key", rest())
    walks.forget("shop")
    assert walks.take("shop", "key") is None
    assert walks.take("mail", "key") is not None


def test_the_oldest_go_when_there_is_too_much() -> None:
    walks = ListCache(clock=Clock(), limit=2500)
    for name in ("one", "two", "three"):
        walks.keep("shop", name, rest())
    walks.keep("shop", "huge", rest(items=3))
    assert [walks.take("shop", name) is None for name in ("one", "two", "three", "huge")] == [True, False, False, True]


WHERE = ["3.71", "http://x", "/backups", "marker"]


@pytest.mark.parametrize(
    ("token", "where", "query"),
    [
        ("else", WHERE, {"limit": "5"}),
        ("token", ["3.0", *WHERE[1:]], {"limit": "5"}),
        ("token", [*WHERE[:3], "another"], {"limit": "5"}),
        ("token", WHERE, {"limit": "5", "status": "error"}),
    ],
)
def test_who_asks_for_something_else_finds_nothing(token: str, where: list[str], query: dict[str, str]) -> None:
    key = key_of("token", WHERE, {"limit": "5"})
    assert key == key_of("token", WHERE, {"marker": "before", "limit": "5"})
    assert key != key_of(token, where, query)
    assert "token" not in key
