"""Secrets stay where they are. Every test checks that at its end; here it is shown that the check would see one."""

from __future__ import annotations

import pytest

from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.secret_scan import Oracle
from tests.support.cluster.workloads import Errand, Mount, claim, run_errand

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing]

NEEDLE = "a-secret-that-somebody-put-into-a-description"
PLANTED = "the-value-of-a-secret-in-a-description-as-well"


def test_what_objects_and_movers_show_is_searched(tenant: Tenant) -> None:
    lab, name = tenant.lab, tenant.name
    lab.apply(claim(lab, name, "disk", block=True, size="16Mi"))
    fill = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    run_errand(lab, name, Errand("fill", fill, (Mount("disk", "/dev/volume", is_block=True),)))
    tenant.limit(uploadBytesPerSecond=1 << 20)
    lab.apply(tenant.backup("described", "disk", description=NEEDLE))
    tenant.ends("volumebackup/described")

    tenant.wait_until("the mover's log", lambda: "bytesDone" in tenant.witness.said(name))
    seen = tenant.witness.said(name)
    assert all(part in seen for part in ('"kind":"Job"', '"kind":"Pod"', "CINDERBLOCK_TASK", NEEDLE))
    assert tenant.exposed_secrets() == []
    tenant.secrets.append(NEEDLE)
    assert tenant.exposed_secrets() == [f"an object shows a secret of {name}", f"a mover shows a secret of {name}"]
    tenant.secrets.remove(NEEDLE)


def test_secret_in_any_of_these_places_would_be_found(tenant: Tenant, oracle: Oracle) -> None:
    lab, name = tenant.lab, tenant.name
    oracle.learn()
    assert oracle.snapshot_claim() == []
    assert oracle.hears_the_operator()
    lab.apply(tenant.secret("planted", password=PLANTED), tenant.backup("shown", "absent", description=PLANTED))
    tenant.reaches("volumebackup/shown", "error")
    oracle.learn()
    place = f"{name}/planted password"
    tenant.wait_until("what was shown", lambda: place in oracle.snapshot_claim())
    tenant.kubectl("delete", "secret", "planted")
    oracle.forget(place)
