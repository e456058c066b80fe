"""Removals of old BackupVerifications while the API server refuses those of a namespace."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import cast

from cinderblock.api.v1alpha1.verification import VerificationLevel, VerificationPhase
from cinderblock.controller.context import Context
from cinderblock.controller.schedules.verify import MAX_REMOVALS, _Writer
from cinderblock.errors import PermanentError
from cinderblock.kube.kinds import Kind
from cinderblock.lifecycle.schedule.verification.record import VerificationRecord

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


class Kube:
    """An API server that refuses deletions in one namespace."""

    def __init__(self) -> None:
        self.requests: list[str] = []

    async def delete(self, kind: Kind, name: str, namespace: str, **_given: str) -> None:
        self.requests.append(namespace)
        if namespace == "evil":
            raise PermanentError("refused by a policy")


async def test_refused_removals_of_one_namespace_use_up_one_request() -> None:
    records = [
        VerificationRecord(
            namespace, f"v-{number}", f"u-{number}", "1", VerificationLevel.DATA, "c", NOW, VerificationPhase.VERIFIED
        )
        for namespace in ("evil", "good")
        for number in range(2 * MAX_REMOVALS)
    ]
    kube = Kube()
    writer = _Writer(cast("Context", type("Context", (), {"kube": kube})))
    await writer.remove(records)
    assert kube.requests.count("evil") == 1
    assert kube.requests.count("good") == MAX_REMOVALS - 1
    assert writer.problem == "refused by a policy"
