"""An upgrade that brings the values of an older release renders the same, or says what must be set; never less."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.support.cluster.chart import CHART, EMBEDDED, NAMESPACE, documents, helm, of_kind

pytestmark = pytest.mark.integration

RELEASES = sorted((Path(__file__).parents[2] / "data" / "releases").iterdir())
OUTSIDE = ("gateway.enabled=true", "gateway.service.type=LoadBalancer")


def options(*settings: str) -> list[str]:
    return [f"--namespace={NAMESPACE}", *(f"--set={setting}" for setting in settings)]


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def old_values(request: pytest.FixtureRequest) -> Path:
    """The values of the chart of a release: its defaults, which users copy into files of their own."""
    path: Path = request.param / "values.yaml"
    return path


@pytest.fixture
def reusing(old_values: Path, tmp_path: Path) -> Path:
    """The chart as `helm upgrade --reuse-values` renders it: with the defaults of the old release, and no others."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    shutil.copy(old_values, chart / "values.yaml")
    return chart


@pytest.mark.parametrize("settings", [(), EMBEDDED], ids=["plain", "embedded store"])
def test_file_with_all_old_values_renders_the_same_objects(old_values: Path, settings: tuple[str, ...]) -> None:
    def rendered(*more: str) -> set[tuple[str, str]]:
        done = helm("template", "cinderblock", str(CHART), *options(*settings), *more)
        assert done.returncode == 0, done.stderr
        found = documents(done.stdout)
        return {(item["kind"], item["metadata"]["name"]) for item in found if item["kind"] != "Job"}

    assert rendered(f"--values={old_values}") == rendered()


def test_reused_values_render_or_name_the_missing_value(reusing: Path) -> None:
    done = helm("template", "cinderblock", str(reusing), *options())
    if done.returncode:
        assert "admissionPolicies" in done.stderr
        assert "nil pointer" not in done.stderr
        return
    kinds = [document["kind"] for document in documents(done.stdout)]
    assert "ValidatingAdmissionPolicy" in kinds


def test_old_way_in_without_tls_is_refused_by_name(old_values: Path) -> None:
    done = helm("template", "cinderblock", str(CHART), *options(*OUTSIDE), f"--values={old_values}")
    assert done.returncode != 0
    assert "gateway.tls.secretName" in done.stderr
    assert "gateway.allowPlaintext=true" in done.stderr


def test_notes_of_an_upgrade_say_what_changes(old_values: Path, tmp_path: Path) -> None:
    notes = upgrade_notes(tmp_path, old_values, *EMBEDDED)
    for words in ("rbac.aggregateBackupStoresToEdit", "mover.podSecurity", "admissionPolicies.exemptUsers"):
        assert words in notes
    assert f"kubectl -n {NAMESPACE} logs -l app.kubernetes.io/component=embedded-store-setup" in notes
    assert "docs/guide/upgrade.md" in notes
    assert "Policies refuse" not in upgrade_notes(tmp_path, old_values, "admissionPolicies.enabled=false")


def upgrade_notes(directory: Path, values: Path, *settings: str) -> str:
    """Return the notes of an upgrade. Without a cluster, helm renders those of an installation only."""
    chart = directory / f"notes-{len(settings)}"
    shutil.copytree(CHART, chart)
    templates = chart / "templates"
    notes = (templates / "NOTES.txt").read_text()
    (templates / "_notes.tpl").write_text('{{ define "notes" }}\n' + notes + "\n{{ end }}")
    (templates / "shown.yaml").write_text(
        'kind: Notes\nmetadata: {name: n}\ntext: |\n{{ include "notes" . | indent 2 }}'
    )
    (templates / "NOTES.txt").unlink()
    arguments = ("--is-upgrade", "--show-only=templates/shown.yaml", f"--values={values}")
    done = helm("template", "cinderblock", str(chart), *options(*settings), *arguments)
    assert done.returncode == 0, done.stderr
    [shown] = of_kind(documents(done.stdout), "Notes")
    return str(shown["text"])
