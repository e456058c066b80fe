"""docs/guide/openstack.md describes every intended difference from Cinder."""

from pathlib import Path

import pytest

from tests.openstack import differences
from tests.openstack.differences import Difference

PAGE = Path(__file__).parents[3] / "docs" / "guide" / "openstack.md"


@pytest.mark.parametrize("difference", differences.ALL, ids=lambda difference: difference.name)
def test_page_describes_the_difference(difference: Difference) -> None:
    page = " ".join(PAGE.read_text("utf-8").split())
    assert f"* **{difference.name}.** {' '.join(difference.reason.split())}" in page
