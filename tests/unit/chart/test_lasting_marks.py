"""The policies protect no mark that stays on an object of a user, so that other tools can copy such objects."""

from __future__ import annotations

import yaml

from cinderblock.api import labels
from tests.support.cluster.chart import CHART


def test_mark_of_a_populated_volume_is_not_protected() -> None:
    text = (CHART / "admission" / "marks.yaml").read_text()
    protected = {mark for policy in yaml.safe_load(text)["policies"] for mark in policy["annotations"]}
    assert labels.TEMPORARY_ANNOTATION in protected
    assert labels.POPULATED_ANNOTATION not in protected
