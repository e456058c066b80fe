"""No secret is exposed. Every test checks that at its end; this file shows that the check detects a leak."""

from __future__ import annotations

import pytest

from tests.support.cluster.namespaces import Tenant
from tests.support.cluster.secret_scan import SecretScanner
from tests.support.cluster.workloads import Mount, OneShotPod, claim, run_pod

pytestmark = [pytest.mark.e2e, pytest.mark.disturbing]

NEEDLE = "a-secret-that-somebody-put-into-a-description"
PLANTED = "the-value-of-a-secret-in-a-description-as-well"


def test_objects_and_mover_logs_are_searched(tenant: Tenant) -> None:
    kube, name = tenant.kube, tenant.name
    kube.apply(claim(kube, name, "disk", block=True, size="16Mi"))
    fill = ("python3", "/tools/devices.py", "fill", "/dev/volume", "1")
    run_pod(kube, name, OneShotPod("fill", fill, (Mount("disk", "/dev/volume", is_block=True),)))
    tenant.limit(uploadBytesPerSecond=1 << 20)
    kube.apply(tenant.backup("described", "disk", description=NEEDLE))
    tenant.ends("volumebackup/described")

    tenant.wait_until("the mover's log", lambda: "bytesDone" in tenant.recorder.text_of(name))
    seen = tenant.recorder.text_of(name)
    assert all(part in seen for part in ('"kind":"Job"', '"kind":"Pod"', "CINDERBLOCK_TASK", NEEDLE))
    assert tenant.exposed_secrets() == []
    tenant.secrets.append(NEEDLE)
    assert tenant.exposed_secrets() == [f"an object shows a secret of {name}", f"a mover shows a secret of {name}"]
    tenant.secrets.remove(NEEDLE)


def test_planted_secret_is_found_in_every_place(tenant: Tenant, scanner: SecretScanner) -> None:
    kube, name = tenant.kube, tenant.name
    scanner.learn()
    assert scanner.leaks() == []
    assert scanner.has_operator_log()
    kube.apply(tenant.secret("planted", password=PLANTED), tenant.backup("shown", "absent", description=PLANTED))
    tenant.reaches("volumebackup/shown", "error")
    scanner.learn()
    place = f"{name}/planted password"
    tenant.wait_until("what was shown", lambda: place in scanner.leaks())
    tenant.kubectl("delete", "secret", "planted")
    scanner.forget(place)
