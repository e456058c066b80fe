"""The chart registers our kinds as sources of claims, and gives rights for that only if the operator fills claims."""

from __future__ import annotations

import pytest

from tests.support.cluster.audit import granted
from tests.support.cluster.chart import CHART, NAMESPACE, Objects, documents, helm, of_kind, render

pytestmark = pytest.mark.integration

SERVED = "--api-versions=populator.storage.k8s.io/v1beta1/VolumePopulator"


def with_populators(*settings: str) -> Objects:
    """Render the chart for a cluster that has the type VolumePopulator."""
    options = [f"--set={setting}" for setting in settings]
    done = helm("template", "cinderblock", str(CHART), f"--namespace={NAMESPACE}", SERVED, *options)
    assert done.returncode == 0, done.stderr
    return documents(done.stdout)


def test_both_kinds_are_registered_if_the_cluster_has_the_type() -> None:
    made = of_kind(with_populators(), "VolumePopulator")
    assert [item["sourceKind"] for item in made] == [
        {"group": "cinderblock.io", "kind": "VolumeBackup"},
        {"group": "cinderblock.io", "kind": "RestoreSource"},
    ]
    assert of_kind(render(), "VolumePopulator") == []
    assert of_kind(with_populators("populator.enabled=false"), "VolumePopulator") == []


@pytest.mark.parametrize(("setting", "word"), [("true", "true"), ("false", "false"), ("null", "true")])
def test_rights_and_watches_follow_the_value(setting: str, word: str) -> None:
    objects = render(f"populator.enabled={setting}")
    roles = [role for role in of_kind(objects, "ClusterRole") if role["metadata"]["name"] == "cinderblock"]
    has_rights = {right.resource for right in granted(roles)} >= {"restoresources", "restoresources/status"}
    assert has_rights is (word == "true")
    [deployment] = [item for item in of_kind(objects, "Deployment") if item["metadata"]["name"] == "cinderblock"]
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "CINDERBLOCK_POPULATOR", "value": word} in variables
    [policy] = [item for item in objects if item["metadata"]["name"] == "cinderblock-operator-drills"][:1]
    [fills] = [each for each in policy["spec"]["variables"] if each["name"] == "fillsClaim"]
    assert fills["expression"].startswith("false") is (word == "false")
