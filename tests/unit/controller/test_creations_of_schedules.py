"""Creations of a schedule while webhooks or the API server do not answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import pytest

from cinderblock.controller.context import Context
from cinderblock.controller.schedules.create import SILENT_WEBHOOKS, create_all
from cinderblock.errors import KubeUnavailable
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.schedule.conclude import Outcome, OutcomeKind
from cinderblock.lifecycle.schedule.creation import Creation
from cinderblock.reasons import Reason
from tests.support.schedules.builders import claim, schedule

WEBHOOK = 'Internal error occurred: failed calling webhook "policy.example.com": context deadline exceeded'


class Kube:
    """An API server that fails in some namespaces."""

    def __init__(self, failing: Sequence[str], message: str) -> None:
        self.failing = failing
        self.message = message

    async def create(self, kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
        if body["metadata"]["namespace"] in self.failing:
            raise KubeUnavailable(self.message)
        return body


async def create(namespaces: Sequence[str], failing: Sequence[str], message: str) -> dict[str, Outcome]:
    """Create a backup in each namespace. Return the outcomes by namespace."""
    context = cast("Context", type("Context", (), {"kube": Kube(failing, message)}))
    creations = [
        Creation("run", claim("data", name), f"daily-{name}", {"metadata": {"namespace": name}}) for name in namespaces
    ]
    found = await create_all(context, schedule(), creations)
    return {creation.claim.namespace: outcome for creation, outcome in found.items()}


async def test_webhooks_of_some_namespaces_hold_up_no_other_one() -> None:
    outcomes = await create(["a1", "a2", "a3", "a4", "b", "c"], ["a1", "a2", "a3", "a4"], WEBHOOK)
    assert {name for name, outcome in outcomes.items() if outcome.kind is OutcomeKind.CREATED} == {"b", "c"}
    assert outcomes["a1"].reason == Reason.KUBE_UNAVAILABLE


async def test_many_silent_webhooks_leave_the_rest_for_later() -> None:
    names = [f"a{number:02}" for number in range(SILENT_WEBHOOKS + 5)]
    outcomes = await create([*names, "z"], names, WEBHOOK)
    assert len(outcomes) == SILENT_WEBHOOKS


async def test_api_server_that_does_not_answer_ends_the_creations() -> None:
    with pytest.raises(KubeUnavailable):
        await create(["a", "b", "c", "d"], ["a", "b", "c"], "HTTP 503")
