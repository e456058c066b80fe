"""Errors and reasons: every error has a reason of the enum, and a failReason fits into its field."""

from __future__ import annotations

import json
import marshal
import re

import pytest

from cinderblock import errors
from cinderblock.errors import CinderblockError
from cinderblock.reasons import Reason, parse_reason

BASES = (errors.CinderblockError, errors.PermanentError, errors.TransientError)
KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, CinderblockError) and kind not in BASES
]

OTHER_REASONS = {
    errors.BackupNeeded: Reason.HAS_DEPENDENT_BACKUPS,
    errors.ObjectArchived: Reason.ARCHIVED,
    errors.ObjectLocked: Reason.LOCKED,
    errors.StoreThrottled: Reason.THROTTLED,
}
"""Errors whose reason is another word than the name of their class."""


@pytest.mark.parametrize("kind", KINDS)
def test_default_reason_names_the_class_or_its_base(kind: type[CinderblockError]) -> None:
    reason = kind("cause").reason
    assert isinstance(reason, Reason)
    assert reason in {OTHER_REASONS.get(kind), *(base.__name__ for base in kind.__mro__)}


@pytest.mark.parametrize("kind", BASES)
def test_base_without_reason_is_a_defect(kind: type[CinderblockError]) -> None:
    assert kind("cause").reason is Reason.UNEXPECTED


def test_given_reason_wins_over_the_default() -> None:
    assert errors.NotFound("cause", reason=Reason.SECRET_NOT_FOUND).reason is Reason.SECRET_NOT_FOUND


@pytest.mark.parametrize("reason", Reason)
def test_member_has_the_name_of_its_value(reason: Reason) -> None:
    assert re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", reason.value).upper() == reason.name


def test_reason_of_another_program_is_kept() -> None:
    assert parse_reason("Queued") is Reason.QUEUED
    assert parse_reason("Evicted") == "Evicted"
    assert not isinstance(parse_reason("Evicted"), Reason)


def test_reason_is_serialized_as_its_value() -> None:
    """A plain string is needed for marshal, by which worker processes report errors."""
    assert json.dumps({"reason": Reason.QUEUED}) == '{"reason": "Queued"}'
    assert marshal.loads(marshal.dumps(str(Reason.QUEUED))) == "Queued"
