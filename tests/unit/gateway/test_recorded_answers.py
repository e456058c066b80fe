"""The recorded answers of the real Cinder match the scenarios."""

import json

import pytest

from tests.openstack.scenarios import DATA, Command, Request, Scenario, every


@pytest.mark.parametrize("scenario", every(Request) + every(Command), ids=lambda scenario: scenario.name)
def test_every_request_has_its_recorded_answer(scenario: Scenario) -> None:
    recorded = [entry["request"] for entry in json.loads(scenario.recording.read_text("utf-8"))]
    assert recorded == scenario.titles, "make cinder-answers records them again"


def test_every_recording_has_its_scenario() -> None:
    assert {path.stem for path in (DATA / "answers").iterdir()} == {
        scenario.name for scenario in every(Request) + every(Command)
    }
