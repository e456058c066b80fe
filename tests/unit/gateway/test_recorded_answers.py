"""The recorded answers of the real Cinder belong to the scenarios as they are."""

import json

import pytest

from tests.openstack.scenarios import DATA, Command, Request, Scenario, every


@pytest.mark.parametrize("scenario", every(Request) + every(Command), ids=lambda scenario: scenario.name)
def test_every_request_has_its_recorded_answer(scenario: Scenario) -> None:

    recorded = [entry["request"] for entry in json.loads(scenario.recording.read_text("utf-8"))]
    assert recorded == scenario.titles, "make cinder-answers records them anew"


def test_no_recording_is_left_over() -> None:
    assert {path.stem for path in (DATA / "answers").iterdir()} == {
        scenario.name for scenario in every(Request) + every(Command)
    }
