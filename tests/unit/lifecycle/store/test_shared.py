"""Which namespaces may use a ClusterBackupStore, and where the objects of each are."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderblock.api.v1alpha1.cluster_store import SharedStore
from cinderblock.api.v1alpha1.store import BackupStore
from cinderblock.errors import InvalidInput
from cinderblock.lifecycle.store import shared
from tests.support.shared_stores import SYSTEM, a_backup_store, a_cluster_store, a_namespace, a_shared_store

NAMES = st.sampled_from(["shop", "bank", "mail"])
LABELS = st.dictionaries(st.sampled_from(["tier", "team"]), st.sampled_from(["a", "b", ""]), max_size=2)
SELECTORS = st.fixed_dictionaries(
    {},
    optional={
        "matchLabels": LABELS,
        "matchExpressions": st.lists(
            st.fixed_dictionaries(
                {
                    "key": st.sampled_from(["tier", "team"]),
                    "operator": st.sampled_from(["In", "NotIn", "Exists", "DoesNotExist", "Near"]),
                },
                optional={"values": st.lists(st.sampled_from(["a", "b"]), max_size=2)},
            ),
            max_size=2,
        ),
    },
)
ALLOWED = st.fixed_dictionaries(
    {"from": st.sampled_from(["None", "Names", "Selector", "All"])},
    optional={"names": st.lists(NAMES, max_size=3), "selector": SELECTORS},
)


@given(allowed=ALLOWED, name=NAMES, labels=LABELS)
def test_only_named_selected_or_all_namespaces_are_allowed(
    allowed: dict[str, Any], name: str, labels: dict[str, str]
) -> None:
    cluster = a_cluster_store(allowedNamespaces=allowed)
    try:
        found = shared.allows(cluster, a_namespace(name, labels=labels))
    except InvalidInput:
        # Only a selector can be wrong, and a wrong one allows nobody.
        assert allowed["from"] == "Selector"
        return
    assert found == _expected(allowed, name, labels)


def _expected(allowed: dict[str, Any], name: str, labels: dict[str, str]) -> bool:
    """Return the same by another way: every condition as a sentence of the documentation of Kubernetes."""
    if allowed["from"] == "Names":
        return name in allowed.get("names", ())
    if allowed["from"] != "Selector":
        return bool(allowed["from"] == "All")
    if "selector" not in allowed:
        return False
    selector = allowed["selector"]
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for condition in selector.get("matchExpressions", ()):
        has, values = condition["key"] in labels, condition.get("values", ())
        is_in = has and labels[condition["key"]] in values
        holds = {"In": is_in, "NotIn": not is_in, "Exists": has, "DoesNotExist": not has}[condition["operator"]]
        if not holds:
            return False
    return True


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {
            "namespace": NAMES,
            "namespaceUID": st.sampled_from(["u-shop", "u-bank", "u-mail"]),
            "uid": st.sampled_from(["u-shop", "u-bank", "u-lost"]),
        },
        optional={"name": NAMES},
    ),
    max_size=3,
    unique_by=lambda entry: entry["namespace"],
)


@given(former=ENTRIES, prefix=st.sampled_from(["", "team/backups"]))
def test_two_namespaces_never_have_the_same_place(former: list[dict[str, str]], prefix: str) -> None:
    cluster = a_cluster_store(formerNamespaces=former, prefix=prefix)
    existing = {name: a_namespace(name) for name in ("shop", "bank", "mail")}
    places = []
    for namespace in existing.values():
        earlier = existing.get(shared.former_name(cluster, namespace) or "")
        with contextlib.suppress(InvalidInput):
            places.append(shared.prefix_of(cluster, namespace, earlier))
    assert len(places) == len(set(places))
    # No place is inside of another one.
    assert not [one for one in places for other in places if one != other and one.startswith(f"{other}/")]
    assert all(place.startswith(prefix) for place in places)


def test_new_namespace_of_an_old_name_has_another_place() -> None:
    cluster = a_cluster_store(prefix="company")
    assert shared.prefix_of(cluster, a_namespace("shop", uid="first")) == "company/shop/first"
    assert shared.prefix_of(cluster, a_namespace("shop", uid="second")) == "company/shop/second"


def test_administrator_gives_an_earlier_place_to_a_namespace() -> None:
    former = [
        {"namespace": "shop", "namespaceUID": "second", "uid": "first"},
        {"namespace": "bank", "namespaceUID": "u-bank", "name": "old-bank", "uid": "lost"},
    ]
    cluster = a_cluster_store(formerNamespaces=former)
    second = a_namespace("shop", uid="second")
    assert shared.prefix_of(cluster, second, second) == "shop/first"
    assert shared.prefix_of(cluster, a_namespace("bank")) == "old-bank/lost"
    assert shared.prefix_of(cluster, a_namespace("bank"), a_namespace("old-bank")) == "old-bank/lost"


TAKEN = [{"namespace": "bank", "namespaceUID": "u-bank", "name": "shop", "uid": "u-shop"}]


def test_owner_keeps_its_place_whatever_an_entry_says() -> None:
    cluster = a_cluster_store(formerNamespaces=TAKEN)
    assert shared.prefix_of(cluster, a_namespace("shop")) == "shop/u-shop"
    with pytest.raises(InvalidInput, match="Ask an administrator") as refused:
        shared.prefix_of(cluster, a_namespace("bank"), a_namespace("shop"))
    assert "shop" not in refused.value.message, "a tenant reads nothing about others"
    assert "owner still exists" in (shared.former_conflict(cluster, a_namespace("bank"), a_namespace("shop")) or "")


def test_next_namespace_of_the_name_gets_no_earlier_place() -> None:
    cluster = a_cluster_store(formerNamespaces=TAKEN)
    assert shared.prefix_of(cluster, a_namespace("bank", uid="later")) == "bank/later"


def test_shared_store_has_the_settings_of_its_cluster_store() -> None:
    cluster = a_cluster_store(prefix="company", region="eu-west-1", limits={"movers": 3, "moversPerNamespace": 2})
    own = a_backup_store()
    found = shared.share(cluster, own, a_namespace("shop"), SYSTEM)
    assert isinstance(found, BackupStore)
    assert (found.namespace, found.name, found.uid) == ("shop", "shared", own.uid)
    assert (found.spec.prefix, found.root_prefix) == ("company/shop/u-shop", "company")
    assert (found.spec.region, found.spec.limits.movers, found.movers_per_namespace) == ("eu-west-1", 3, 2)
    assert (found.secrets_in, found.cluster_store, found.cluster_store_uid) == (SYSTEM, "shared", "u-shared")


def test_whole_store_is_checked_at_the_prefix_of_all_namespaces() -> None:
    whole = shared.whole(a_cluster_store(prefix="company"), SYSTEM)
    assert isinstance(whole, SharedStore)
    assert (whole.spec.prefix, whole.root_prefix, whole.namespace) == ("company", "company", "")


def test_stored_settings_of_the_own_store_do_not_count() -> None:
    """The API server stores defaults, and a later release may have others."""
    own = a_backup_store(compareEvery=12, credentialsSecretRef={"name": "mine"}, compression={"level": 9})
    assert shared.share(a_cluster_store(), own, a_namespace(), SYSTEM).spec == a_shared_store().spec
