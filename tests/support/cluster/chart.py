"""The chart as the real helm renders it, without a cluster."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.toolchain import tool

CHART = Path(__file__).parents[3] / "charts" / "cinderblock"
NAMESPACE = "backup-system"
EMBEDDED = ("embeddedStore.enabled=true", "embeddedStore.namespaces={demo,shop}")
METRICS = (
    "metrics.scrapeAnnotations=true",
    "metrics.serviceMonitor.enabled=true",
    "metrics.podMonitor.enabled=true",
    "metrics.rules.enabled=true",
    "metrics.rules.requireVerification=true",
    "metrics.rules.maxVerificationAgeDays=1",
    "metrics.rules.maxDrillAgeDays=1",
    "metrics.dashboard.enabled=true",
)
GATEWAY = (
    "gateway.enabled=true",
    "gateway.tls.secretName=gateway-tls",
    "gateway.ingress.enabled=true",
    "gateway.ingress.host=cinder.example.org",
    "gateway.ingress.tlsSecretName=ingress-tls",
)
BROKER = ("broker.enabled=true",)
EVERYTHING = (
    *EMBEDDED,
    *METRICS,
    *GATEWAY,
    *BROKER,
    "embeddedStore.createNamespaces=true",
    "uninstall.releaseFinalizers=always",
)

Objects = list[dict[str, Any]]


def helm(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run helm, which knows no cluster: a chart that asks one gets no answer."""
    return subprocess.run(
        [str(tool("helm")), command, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"KUBECONFIG": os.devnull},
    )


def render(*settings: str, namespace: str = NAMESPACE) -> Objects:
    """Render the chart as release "cinderblock", with values given as ``--set`` takes them."""
    return documents(_rendered(settings, namespace))


def documents(text: str) -> Objects:
    """Return the documents of a YAML text that are not empty. The parser in C is ten times as fast."""
    return [document for document in yaml.load_all(text, Loader=yaml.CSafeLoader) if document]


@cache
def _rendered(settings: tuple[str, ...], namespace: str) -> str:
    """Return what helm prints. Many tests render the same settings."""
    options = [f"--set={setting}" for setting in settings]
    done = helm("template", "cinderblock", str(CHART), f"--namespace={namespace}", *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_kind(objects: Objects, kind: str) -> Objects:
    """Return the objects of one kind."""
    return [item for item in objects if item["kind"] == kind]
