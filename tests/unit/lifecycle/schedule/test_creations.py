"""Which VolumeBackups a schedule creates: no namespace holds up the others, whatever it writes or refuses."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cinderblock.api import labels
from cinderblock.api.v1alpha1.backup import VolumeBackup
from cinderblock.lifecycle.backup_record import BackupRecord, record_of
from cinderblock.lifecycle.schedule.decide import decide
from tests.support.schedules.builders import START, claim, cluster_schedule, observed, record

AT_TWO = START + timedelta(hours=14)


def parsed(annotation: str, text: str) -> BackupRecord:
    """Return the record of a VolumeBackup with one annotation."""
    metadata = {"name": "x", "namespace": "tenant", "uid": "u", "annotations": {annotation: text}}
    return record_of(VolumeBackup.model_validate({"metadata": metadata, "spec": {"volumeId": "data"}}))


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "soon"])
def test_time_beyond_the_calendar_stops_nobody(text: str) -> None:
    assert parsed(labels.SCHEDULED_FOR_ANNOTATION, text).scheduled_for is None
    forged = parsed(labels.FULL_TIME_ANNOTATION, text).full_time
    mine, theirs = claim("a", "honest"), claim("b", "tenant")
    backups = [record("r", theirs, is_incremental=True, full_time=forged)]
    made = decide(observed(cluster_schedule(), mine, theirs, backups=backups), AT_TWO).creations
    assert {creation.claim.namespace for creation in made} == {"honest", "tenant"}


def test_namespaces_that_refuse_everything_leave_turns_to_others() -> None:
    claims = [claim("data", f"refuses-{number:02}") for number in range(60)]
    good = [claim("data", f"takes-{number}") for number in range(5)]
    served: set[str] = set()
    for look in range(50):
        made = decide(observed(cluster_schedule(), *claims, *good), AT_TWO + look * timedelta(seconds=5)).creations
        served |= {creation.claim.namespace for creation in made}
    assert {one.namespace for one in good} <= served
