"""How soon an object is looked at again."""

from __future__ import annotations

from cinderblock.handlers.keys import Key
from cinderblock.handlers.pace import QUICK_LOOKS, SLOW, Pace

KEY = Key("VolumeRestore", "ns", "one")


def test_an_object_that_does_not_change_is_looked_at_quickly_for_a_while_and_then_slowly() -> None:
    pace = Pace()
    asked = [pace.next(KEY, "7", 1.0) for _ in range(QUICK_LOOKS + 3)]
    assert asked == [1.0] * QUICK_LOOKS + [SLOW] * 3


def test_an_object_that_changes_is_looked_at_as_quickly_as_is_asked() -> None:
    pace = Pace()
    assert {pace.next(KEY, str(version), 0.5) for version in range(50)} == {0.5}


def test_what_is_asked_for_slowly_or_not_at_all_stays_so() -> None:
    pace = Pace()
    assert [pace.next(KEY, "7", asked) for asked in (30.0, None, 30.0, None) * 5] == [30.0, None, 30.0, None] * 5
