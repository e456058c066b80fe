"""The plan of a recovery as a pure function."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api.mover import BackupMetadata, VolumeMode
from cinderblock.api.origin import ClaimFacts
from cinderblock.errors import IntegrityError, InvalidInput, TooLarge
from cinderblock.lifecycle.recovery import survey as survey_module
from cinderblock.lifecycle.recovery.candidate import MAX_BYTES, MAX_PAIRS, Candidate, Contents, StoredId, candidate_of
from cinderblock.lifecycle.recovery.cluster_view import ClusterView
from cinderblock.lifecycle.recovery.objects import backup_object, restore_name, restore_object
from cinderblock.lifecycle.recovery.plan import Choices, ClaimState, Plan, PlannedClaim, make_plan, unused
from cinderblock.lifecycle.recovery.survey import KEPT, NAMED, Survey, Unreadable

NOW = datetime(2026, 5, 4, tzinfo=UTC)
BASE = NOW - timedelta(days=10)


def a_candidate(
    name: str = "data", backup: str = "b-1", *, hours: int = 0, volume: str = "v-1", sealed: bool = True, **fields: Any
) -> Candidate:
    stored = StoredId(f"backups/{volume}/{backup}.manifest", volume, backup, backup, f"daily-{backup}")
    usual = {
        "backup_id": backup,
        "namespace": "shop",
        "volume_id": volume,
        "volume_name": name,
        "volume_mode": VolumeMode.FILESYSTEM,
        "volume_bytes": 1 << 30,
        "storage_class": "fast",
        "created_at": BASE,
        "data_timestamp": BASE + timedelta(hours=hours),
    }
    return candidate_of(stored, BackupMetadata(**usual | fields), Contents("d" * 64, sealed, 1000, 0))


def a_survey(*candidates: Candidate, asked: frozenset[str] = frozenset()) -> Survey:
    survey = Survey(asked=asked)
    for candidate in candidates:
        survey.add(candidate)
    return survey


def a_cluster(*claims: str, classes: tuple[str, ...] = ("fast",), default: str | None = "fast") -> ClusterView:
    keys = frozenset(("shop", claim) for claim in claims)
    return ClusterView(frozenset({"shop"}), keys, frozenset(classes), default)


def plan_of(*candidates: Candidate, cluster: ClusterView | None = None, **choices: Any) -> Plan:
    return make_plan(a_survey(*candidates), Choices(**choices), NOW, cluster)


def only(plan: Plan) -> PlannedClaim:
    [claim] = plan.claims
    return claim


def chosen(plan: Plan) -> dict[str, str]:
    return {claim.key[1]: claim.backup.stored.backup_id for claim in plan.claims if claim.backup}


def test_newest_backup_of_each_claim_is_chosen_and_older_ones_are_offered() -> None:
    plan = plan_of(*(a_candidate(backup=f"b-{hours}", hours=hours) for hours in (2, 5, 3)))
    assert chosen(plan) == {"data": "b-5"}
    assert [older.stored.backup_id for older in only(plan).older] == ["b-3", "b-2"]
    assert only(plan).state is ClaimState.PLANNED


def test_other_volume_of_the_same_name_is_shown_and_not_mixed_in() -> None:
    old = a_candidate(backup="old", volume="v-1", hours=1)
    new = a_candidate(backup="new", volume="v-2", hours=2)
    claim = only(plan_of(old, new))
    assert claim.backup is new
    assert [other.stored.volume_id for other in claim.other_volumes] == ["v-1"]
    assert claim.older == ()


def test_asked_backup_goes_before_newer_ones_even_if_very_old() -> None:
    candidates = [a_candidate(backup=f"b-{hours}", hours=hours) for hours in range(KEPT + 5)]
    survey = a_survey(*candidates, asked=frozenset({"b-0", "nowhere"}))
    plan = make_plan(survey, Choices(), NOW)
    assert chosen(plan) == {"data": "b-0"}
    assert plan.unknown_backups == ("nowhere",)


def test_backup_that_is_not_whole_is_replaced_by_the_next() -> None:
    newest, older = a_candidate(backup="new", hours=2), a_candidate(backup="old", hours=1)
    survey = a_survey(newest, older)
    claim = only(make_plan(survey, Choices(), NOW, None, {newest.stored.manifest: "a pack is missing"}))
    assert claim.backup is older
    assert "new is not whole: a pack is missing" in claim.notes[0]
    both = {newest.stored.manifest: "x", older.stored.manifest: "y"}
    assert only(make_plan(survey, Choices(), NOW, None, both)).state is ClaimState.BLOCKED


def test_unreadable_backups_are_named_and_may_be_newer() -> None:
    survey = a_survey(a_candidate(hours=2))
    for day in range(NAMED + 2):
        bad = Unreadable(f"k-{day}", "v-1", f"x-{day}", BASE + timedelta(days=day), "IntegrityError", "torn")
        survey.add_unreadable(bad, IntegrityError("torn"))
    claim = only(make_plan(survey, Choices(), NOW))
    assert [each.backup_id for each in claim.unreadable] == ["x-4", "x-3", "x-2"]
    assert any("5 backups cannot be read, and may be newer" in note for note in claim.notes)


def test_existing_claim_is_not_planned() -> None:
    plan = plan_of(a_candidate("data"), a_candidate("logs", volume="v-2"), cluster=a_cluster("data"))
    assert [(claim.key[1], claim.state) for claim in plan.claims] == [("data", "exists"), ("logs", "planned")]


@pytest.mark.parametrize(
    ("classes", "default", "map_", "state", "text"),
    [
        (("fast",), None, {}, ClaimState.PLANNED, ""),
        (("slow",), "slow", {}, ClaimState.PLANNED, "fast does not exist in the cluster: the default class slow"),
        (("slow",), None, {}, ClaimState.BLOCKED, "give --storage-class fast=NEW"),
        (("slow",), None, {"fast": "slow"}, ClaimState.PLANNED, ""),
        (("fast",), None, {"fast": "gone"}, ClaimState.BLOCKED, "StorageClass gone does not exist"),
    ],
)
def test_class_is_mapped_and_checked(
    classes: tuple[str, ...], default: str | None, map_: dict[str, str], state: ClaimState, text: str
) -> None:
    cluster = a_cluster(classes=classes, default=default)
    claim = only(plan_of(a_candidate(), cluster=cluster, storage_classes=map_))
    assert claim.state is state
    assert text in " ".join((*claim.notes, *claim.problems))
    assert claim.storage_class == map_.get("fast")


def test_claims_of_two_namespaces_do_not_become_one() -> None:
    two = (a_candidate(), a_candidate(volume="v-2", namespace="bank"))
    claim = only(plan_of(*two, namespace_map={"bank": "shop"}))
    assert claim.state is ClaimState.BLOCKED
    assert "namespaces bank, shop all have a claim data" in claim.problems[0]
    apart = plan_of(*two, namespace_map={"bank": "new-bank"})
    assert {claim.key for claim in apart.claims} == {("shop", "data"), ("new-bank", "data")}


def test_order_is_priority_then_given_namespaces_then_pods_by_number() -> None:
    sets = [
        a_candidate(f"data-db-{n}", volume=f"db-{n}", claim=ClaimFacts(stateful_set="db", ordinal=n))
        for n in (10, 2, 0)
    ]
    plan = plan_of(
        *sets,
        a_candidate("logs", volume="v-1"),
        a_candidate("first", volume="v-2", namespace="zoo"),
        a_candidate("urgent", volume="v-3"),
        namespaces=("zoo", "shop"),
        priorities={("shop", "urgent"): 5, ("shop", ""): -1, ("zoo", ""): -1},
    )
    names = [claim.key[1] for claim in plan.claims]
    assert names == ["urgent", "first", "data-db-0", "data-db-2", "data-db-10", "logs"]


def test_options_that_fit_nothing_are_named() -> None:
    choices = Choices(
        namespaces=("shop", "shpo"),
        namespace_map={"bnak": "bank"},
        storage_classes={"fsat": "slow", "fast": "slow"},
        priorities={("shop", "dtaa"): 1, ("shop", ""): 2},
    )
    plan = make_plan(a_survey(a_candidate()), choices, NOW)
    found = ["--namespace shpo", "--namespace-map bnak=bank", "--storage-class fsat=slow", "--priority shop/dtaa"]
    assert unused(plan, choices) == found


@pytest.mark.parametrize("size", [0, -5, MAX_BYTES + 1, 10**4000])
def test_impossible_size_blocks_the_claim(size: int) -> None:
    claim = only(plan_of(a_candidate(volume_bytes=size)))
    assert claim.state is ClaimState.BLOCKED
    assert claim.backup is not None
    assert 0 <= claim.backup.size <= MAX_BYTES + 1


@pytest.mark.parametrize(
    ("request_", "is_noted"), [("512Mi", True), ("1Gi", False), ("2Gi", False), ("", False), ("1e99999", False)]
)
def test_claim_that_requested_less_than_its_volume_is_noted(request_: str, is_noted: bool) -> None:
    claim = only(plan_of(a_candidate(claim=ClaimFacts(requested_size=request_))))
    assert any("it requested" in note for note in claim.notes) is is_noted


def test_data_of_the_future_is_noted() -> None:
    assert any("in the future" in note for note in only(plan_of(a_candidate(hours=10_000))).notes)


@pytest.mark.parametrize("name", ["", "Data", "../etc", "a" * 254, "a..b", "x\n---", "data-"])
def test_name_that_no_claim_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="no claim can have the name"):
        a_candidate(name)


def test_labels_that_cannot_be_set_are_dropped_and_named() -> None:
    labels = {
        "app": "shop",
        "bad key": "x",
        "tier": "a b",
        "cinderblock.io/x": "1",
        "app.kubernetes.io/managed-by": "y",
    }
    annotations = {"note": "line\ntwo", "pv.kubernetes.io/bind-completed": "yes", "big": "x" * 5000}
    candidate = a_candidate(claim=ClaimFacts(labels=labels, annotations=annotations, left_out=["huge"]))
    assert candidate.labels == {"app": "shop"}
    assert candidate.annotations == {"note": "line\ntwo"}
    assert set(candidate.dropped) == {"huge", *labels, *annotations} - {"app", "note"}
    many = a_candidate(claim=ClaimFacts(labels={f"k-{n}": "v" for n in range(1000)}))
    assert (len(many.labels), len(many.dropped)) == (MAX_PAIRS, 50)


def test_too_many_volumes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey_module, "MAX_VOLUMES", 2)
    survey = a_survey(a_candidate(volume="v-1"), a_candidate(volume="v-2"), a_candidate(backup="b-2", volume="v-2"))
    with pytest.raises(TooLarge):
        survey.add(a_candidate(volume="v-3"))


def test_objects_name_the_backup_by_id_and_never_an_existing_claim() -> None:
    claim = only(plan_of(a_candidate(claim=ClaimFacts(labels={"app": "shop"})), storage_classes={"fast": "slow"}))
    assert claim.backup is not None
    body = restore_object(claim, claim.backup)
    assert body["metadata"] == {"name": "recover-data-b-1", "namespace": "shop"}
    expected = {"backupId": "b-1", "name": "data", "storageClassName": "slow", "labels": {"app": "shop"}}
    assert body["spec"] == expected
    spec = backup_object(claim, claim.backup, "rescue", allows_unsealed=True)["spec"]
    assert spec == {
        "import": {"id": "b-1", "manifest": "backups/v-1/b-1.manifest"},
        "deletionPolicy": "Retain",
        "storeName": "rescue",
    }


def test_only_an_unsealed_backup_gets_the_permission() -> None:
    claim = only(plan_of(a_candidate(sealed=False)))
    assert claim.backup is not None
    assert "allowUnsealed" not in backup_object(claim, claim.backup, None)["spec"]["import"]
    allowed = backup_object(claim, claim.backup, None, allows_unsealed=True)
    assert allowed["spec"]["import"]["allowUnsealed"] is True


def test_names_of_restores_are_legal_and_differ() -> None:
    long = "a" * 253
    names = {restore_name(claim, i) for claim in ("data", long, long[:-1]) for i in ("ABCDEF12-x", "--------", "b-1")}
    assert len(names) == 9
    assert all(len(name) <= 253 and name == name.lower() and name[-1].isalnum() for name in names)


backups = st.lists(
    st.tuples(st.sampled_from("abc"), st.sampled_from("vwx"), st.integers(0, 50), st.booleans()), max_size=KEPT
)


@given(backups, st.randoms())
def test_plan_chooses_the_newest_whole_backup_in_any_order(made: list[tuple[str, str, int, bool]], random: Any) -> None:
    candidates = {}
    rejected = {}
    for number, (claim, volume, hours, is_whole) in enumerate(made):
        candidate = a_candidate(claim, f"b-{number}", volume=f"{claim}-{volume}", hours=hours)
        candidates[candidate.stored.manifest] = candidate
        if not is_whole:
            rejected[candidate.stored.manifest] = "torn"
    shuffled = list(candidates.values())
    random.shuffle(shuffled)
    plan = make_plan(a_survey(*shuffled), Choices(), NOW, None, rejected)
    assert plan == make_plan(a_survey(*candidates.values()), Choices(), NOW, None, rejected)
    for claim in plan.claims:
        whole = [c for key, c in candidates.items() if c.claim == claim.key[1] and key not in rejected]
        assert claim.backup == max(whole, key=lambda c: c.age_key, default=None)
