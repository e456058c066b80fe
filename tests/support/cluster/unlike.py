"""Peculiarities of other people's clusters, as objects for a namespace of its own.

A policy wants a label on everything, a LimitRange allows no burst, a StorageClass keeps its volumes, and a webhook
injects a container into pods and lets a queue adopt Jobs. The webhook runs in this process, so the API server must run
on this machine.
"""

from __future__ import annotations

import base64
import json
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from typing_extensions import override

from tests.support.cluster.certificates import Authority
from tests.support.cluster.cluster import KubeCluster, Object

LABEL = "e2e.cinderblock.io/unlike"
"""Label of the namespaces that a cluster unlike ours looks like. Its value is the name of the namespace."""
TEAM = {"team": "storage"}
"""Labels that the policy wants on claims, Jobs, pods and VolumeSnapshots."""
RESOURCES = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}}
"""Resources of a mover that the LimitRange allows."""
QUEUE = "kueue.x-k8s.io/queue-name"
INJECTED = "proxy"

Patch = Callable[[str, Object], list[Object]]
"""Returns the changes to an object of a kind, as a JSON patch."""


def keeping_class(kube: KubeCluster, name: str) -> Object:
    """Return a StorageClass of the usual driver with the reclaim policy Retain."""
    usual = kube.get("storageclass", kube.storage_class)
    assert usual is not None
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": name},
        "provisioner": usual["provisioner"],
        "reclaimPolicy": "Retain",
    }


def limits(namespace: str) -> Object:
    """Return a LimitRange that allows movers no burst: a memory limit at most twice the request."""
    limit = {"type": "Container", "maxLimitRequestRatio": {"memory": "2"}}
    metadata = {"name": "no-burst", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "LimitRange", "metadata": metadata, "spec": {"limits": [limit]}}


def label_policy(namespace: str) -> list[Object]:
    """Return a policy that refuses claims, Jobs, pods and VolumeSnapshots without the label ``team``."""
    rules = [
        {"apiGroups": [""], "apiVersions": ["v1"], "resources": ["persistentvolumeclaims", "pods"]},
        {"apiGroups": ["batch"], "apiVersions": ["v1"], "resources": ["jobs"]},
        {"apiGroups": ["snapshot.storage.k8s.io"], "apiVersions": ["v1"], "resources": ["volumesnapshots"]},
    ]
    selector = {"matchLabels": {LABEL: namespace}}
    wanted = "has(object.metadata.labels) && 'team' in object.metadata.labels"
    group = "admissionregistration.k8s.io/v1"
    return [
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": namespace},
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {"resourceRules": [rule | {"operations": ["CREATE"]} for rule in rules]},
                "validations": [{"expression": wanted, "message": "the label team is missing"}],
            },
        },
        {
            "apiVersion": group,
            "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": namespace},
            "spec": {
                "policyName": namespace,
                "validationActions": ["Deny"],
                "matchResources": {"namespaceSelector": selector},
            },
        },
    ]


def _patch(kind: str, body: Object) -> list[Object]:
    """Return the changes to a new object: a container for a mover's pod, a queue for a Job that asks for none."""
    if kind == "Pod" and body["spec"]["containers"][0]["name"] == "mover":
        image = body["spec"]["containers"][0]["image"]
        proxy = {"name": INJECTED, "image": image, "imagePullPolicy": "IfNotPresent", "resources": RESOURCES}
        # It comes first, and ends only when it is killed.
        proxy["command"] = ["python3", "-c", "import time; time.sleep(3600)"]
        return [{"op": "add", "path": "/spec/containers/0", "value": proxy}]
    if kind == "Job" and body["metadata"].get("annotations", {}).get("queued") == "true":
        queue = {"op": "add", "path": "/metadata/labels/" + QUEUE.replace("/", "~1"), "value": "default"}
        return [queue, {"op": "add", "path": "/spec/suspend", "value": True}]
    return []


class Webhook(BaseHTTPRequestHandler):
    """A webhook that judges each object. A subclass says how."""

    def judge(self, kind: str, body: Object) -> Object:
        """Return the response to an object of a kind, without the UID."""
        raise NotImplementedError

    def do_POST(self) -> None:
        """Answer an AdmissionReview."""
        review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        request = review["request"]
        response = {"uid": request["uid"]} | self.judge(request["kind"]["kind"], request["object"])
        body = json.dumps(review | {"request": None, "response": response}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, *_: Any) -> None:
        """Say nothing."""


class _Mutating(Webhook):
    patch: Patch

    @override
    def judge(self, kind: str, body: Object) -> Object:
        """Return the changes to an object."""
        changes = json.dumps(type(self).patch(kind, body)).encode()
        return {"allowed": True, "patchType": "JSONPatch", "patch": base64.b64encode(changes).decode()}


@contextmanager
def webhook(namespace: str) -> Iterator[Object]:
    """Serve the webhook until the block ends. Yield its configuration, for one namespace."""
    rules = [
        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
        {"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]},
    ]
    with mutating(_patch) as client:
        yield webhook_configuration(namespace, client, rules, {LABEL: namespace})


@contextmanager
def mutating(patch: Patch) -> Iterator[Object]:
    """Serve a webhook that changes objects, until the block ends. Yield how the API server reaches it."""
    with serve_webhook(type("Mutating", (_Mutating,), {"patch": staticmethod(patch)})) as client:
        yield client


@contextmanager
def serve_webhook(handler: type[Webhook]) -> Iterator[Object]:
    """Serve any webhook until the block ends. Yield how the API server reaches it."""
    authority = Authority("webhook")
    identity = authority.sign("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as directory:
        both = Path(directory) / "both.pem"
        both.write_bytes(identity.certificate + identity.key)
        context.load_cert_chain(both)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            bundle = base64.b64encode(authority.certificate).decode()
            yield {"url": f"https://localhost:{server.server_port}/", "caBundle": bundle}
        finally:
            server.shutdown()
            thread.join()


def webhook_configuration(name: str, client: Object, rules: list[Object], namespaces: dict[str, str]) -> Object:
    """Return the configuration of a webhook for the namespaces with these labels."""
    hook = {
        "name": "unlike.e2e.cinderblock.io",
        "clientConfig": client,
        "rules": rules,
        "namespaceSelector": {"matchLabels": namespaces},
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": 5,
    }
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [hook],
    }
