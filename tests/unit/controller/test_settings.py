"""Settings of the operator, read from its environment."""

from __future__ import annotations

import pytest

from cinderblock.controller.settings import OperatorSettings
from cinderblock.errors import InvalidInput

IMAGE = {"CINDERBLOCK_MOVER_IMAGE": "example/cinderblock:1"}


def test_mover_image_is_required() -> None:
    with pytest.raises(InvalidInput, match="CINDERBLOCK_MOVER_IMAGE is not set"):
        OperatorSettings.from_environment({})


def test_other_settings_have_defaults() -> None:
    settings = OperatorSettings.from_environment(IMAGE)
    assert settings.mover_image == "example/cinderblock:1"
    assert settings.max_movers == 16
    assert settings.mover_image_pull_secrets == ()


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5", ""])
def test_invalid_number_is_rejected_by_name(value: str) -> None:
    with pytest.raises(InvalidInput, match="CINDERBLOCK_MAX_MOVERS"):
        OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_MAX_MOVERS": value})


def test_proxy_with_a_password_is_rejected() -> None:
    with pytest.raises(InvalidInput, match="HTTPS_PROXY contains a user or password"):
        OperatorSettings.from_environment(IMAGE | {"HTTPS_PROXY": "http://user:geheim@proxy:3128"})


def test_pull_secrets_are_separated_by_commas() -> None:
    settings = OperatorSettings.from_environment(IMAGE | {"CINDERBLOCK_MOVER_IMAGE_PULL_SECRETS": "a,b"})
    assert settings.mover_image_pull_secrets == ("a", "b")


def test_allowed_endpoints_that_cannot_be_read_do_not_allow_all() -> None:
    variable = "CINDERBLOCK_ALLOWED_ENDPOINTS"
    assert OperatorSettings.from_environment(IMAGE | {variable: "a.example,10.0.0.0/8"}).allowed_endpoints == (
        "a.example",
        "10.0.0.0/8",
    )
    assert OperatorSettings.from_environment(IMAGE).allowed_endpoints == ()
    with pytest.raises(InvalidInput, match=r"s3\.\*\.com"):
        OperatorSettings.from_environment(IMAGE | {variable: "a.example,s3.*.com"})
