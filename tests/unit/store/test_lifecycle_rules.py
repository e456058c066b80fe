"""Lifecycle rules as S3 servers write them: which ones may concern our objects, and what they do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from cinderblock.errors import PermanentError
from cinderblock.lifecycle.store.container_rules import LifecycleRule
from cinderblock.store.s3.lifecycle_rules import parse_rules

EXPIRES = {"Expiration": {"Days": 90}}
WHEN = "90 days after they were written"


def parse(**fields: Any) -> LifecycleRule | None:
    found = parse_rules([{"ID": "rule", "Status": "Enabled", **fields}])
    return found[0] if found else None


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (EXPIRES, LifecycleRule("rule", expires=WHEN)),
        ({"Prefix": "old/", **EXPIRES}, LifecycleRule("rule", "old/", expires=WHEN)),
        ({"Filter": {"Prefix": "new/"}, **EXPIRES}, LifecycleRule("rule", "new/", expires=WHEN)),
        ({"Filter": {}, **EXPIRES}, LifecycleRule("rule", expires=WHEN)),
        (
            {"Filter": {"And": {"Prefix": "a/", "ObjectSizeGreaterThan": 5}}, **EXPIRES},
            LifecycleRule("rule", "a/", expires=WHEN, is_partial=True),
        ),
        ({"Filter": {"ObjectSizeLessThan": 5}, **EXPIRES}, LifecycleRule("rule", expires=WHEN, is_partial=True)),
        (
            {"Expiration": {"Date": datetime(2027, 1, 2, tzinfo=UTC)}},
            LifecycleRule("rule", expires="on 2027-01-02"),
        ),
        ({"Expiration": {"ExpiredObjectDeleteMarker": True}}, LifecycleRule("rule")),
        ({"ID": None, **EXPIRES}, LifecycleRule("without ID", expires=WHEN)),
        ({"ID": "x" * 255}, LifecycleRule("x" * 60)),
        (
            {"Transitions": [{"Days": 1, "StorageClass": "STANDARD_IA"}, {"Days": 9, "StorageClass": "DEEP_ARCHIVE"}]},
            LifecycleRule("rule", archives="to DEEP_ARCHIVE 9 days after they were written"),
        ),
        ({"Transitions": [{"Days": 1, "StorageClass": "GLACIER_IR"}]}, LifecycleRule("rule")),
        (
            {"Transitions": [{"Days": 1, "StorageClass": "STANDARD_IA"}, {"Days": 9, "StorageClass": "ColdArchive"}]},
            LifecycleRule("rule", moves="to ColdArchive 9 days after they were written"),
        ),
        ({"NoncurrentVersionExpiration": {"NoncurrentDays": 7}}, LifecycleRule("rule", version_days=7)),
        (
            {"NoncurrentVersionExpiration": {"NoncurrentDays": 7, "NewerNoncurrentVersions": 2}},
            LifecycleRule("rule"),
        ),
    ],
)
def test_rule_is_understood(fields: dict[str, Any], expected: LifecycleRule) -> None:
    assert parse(**fields) == expected


@pytest.mark.parametrize(
    "fields",
    [
        {"Status": "Disabled", **EXPIRES},
        {"Filter": {"Tag": {"Key": "temporary", "Value": "yes"}}, **EXPIRES},
        {"Filter": {"And": {"Prefix": "", "Tags": [{"Key": "temporary", "Value": "yes"}]}}, **EXPIRES},
    ],
)
def test_rule_that_concerns_no_backup_is_left_out(fields: dict[str, Any]) -> None:
    assert parse(**fields) is None


@pytest.mark.parametrize("fields", [{"Status": None}, {"Status": "enabled"}, {"Status": ""}])
def test_rule_without_a_known_status_is_not_called_harmless(fields: dict[str, Any]) -> None:
    with pytest.raises(PermanentError, match="lifecycle rule rule is not in the form of S3"):
        parse(**fields, **EXPIRES)
