"""Each spec of a schedule that the API server accepts gets a status, and stops no other schedule."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cinderblock.api.crd.definitions import BACKUP_SCHEDULE, CLUSTER_BACKUP_SCHEDULE, CustomResource
from tests.simulation.schedules.test_retention_of_schedules import DAY
from tests.support.cluster.spec_fuzz import schema_of, specs
from tests.support.simulation.schedules import NAMESPACE, ScheduleSimulation


@pytest.mark.parametrize("resource", [BACKUP_SCHEDULE, CLUSTER_BACKUP_SCHEDULE], ids=lambda resource: resource.kind)
@given(data=st.data())
@settings(derandomize=True, max_examples=25)
def test_valid_spec_gets_a_status(resource: CustomResource, data: st.DataObject) -> None:
    spec = data.draw(specs(schema_of(resource)))
    with ScheduleSimulation() as simulation:
        simulation.claim("data")
        other = simulation.schedule("other", spread="0s")
        metadata = {"name": "any", **({"namespace": NAMESPACE} if resource.namespaced else {})}
        made = simulation.objects.create(resource.kind, {"metadata": metadata, "spec": spec})
        assert made is not None
        simulation.run_for(DAY)
        assert simulation.status(made).get("observedGeneration") == made["metadata"]["generation"], spec
        assert simulation.status(other)["lastRun"]["succeeded"] == 1
