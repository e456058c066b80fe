"""Command lines of etcd, API server, controller manager and scheduler."""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import files
from tests.cluster.pki import Authority
from tests.cluster.programs import Program

ISSUER = "https://kubernetes.default.svc.cluster.local"
_CLIENT_LIMITS = ("--kube-api-qps=200", "--kube-api-burst=400")
"""Far above the defaults: tests do in a second what a cluster does in minutes."""
_AUDITED = "system:serviceaccounts:cinderblock-system"
"""All accounts of the namespace that tests install the chart to."""


def etcd(binary: Path, data: Path, client_port: int, peer_port: int) -> Program:
    """Describe an etcd that keeps its data in a directory, for one machine's processes."""
    client, peer = (f"http://127.0.0.1:{port}" for port in (client_port, peer_port))
    return Program(
        "etcd",
        (
            str(binary),
            f"--data-dir={data}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            # Nobody will ever want this data back, and waiting for the disk is most of what etcd does.
            "--unsafe-no-fsync",
            # The API server keeps 5 to 10 minutes of history: in the scale test more than the default of 2 GiB.
            f"--quota-backend-bytes={8 << 30}",
            "--log-level=warn",
        ),
    )


@dataclass(frozen=True)
class ApiServer:
    """The address of an API server, and the APIs that it serves."""

    binary: Path
    directory: Path
    """For files that it makes itself."""
    authority: Authority
    tokens: Path
    etcd_port: int
    port: int
    address: str
    services: str
    alternatives: tuple[str, ...]
    """Further names under which it is reached, as in `IP:10.0.0.1`."""
    has_nodes: bool
    audit_log: Path | None = None
    """Where the requests of the chart's accounts are written down, one JSON object per line; None: nowhere."""

    def program(self) -> Program:
        """Describe the process."""
        certificate, key = self.authority.server("apiserver", [*_LOCAL, f"IP:{self.address}", *self.alternatives])
        public, private = self.authority.service_account_keys()
        command = (
            str(self.binary),
            f"--etcd-servers=http://127.0.0.1:{self.etcd_port}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--cert-dir={self.directory}",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={self.authority.certificate}",
            f"--token-auth-file={self.tokens}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--service-cluster-ip-range={self.services}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            "--profiling=false",
        )
        return Program("kube-apiserver", (*command, *self._nodes(), *self._audit()))

    def _audit(self) -> tuple[str, ...]:
        if self.audit_log is None:
            return ()
        rules: list[dict[str, object]] = [{"level": "Metadata", "userGroups": [_AUDITED]}, {"level": "None"}]
        policy = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules}
        path = files.write(self.directory / "audit-policy.json", json.dumps(policy))
        kept = ("--audit-log-maxsize=200", "--audit-log-maxbackup=1")
        return (f"--audit-policy-file={path}", f"--audit-log-path={self.audit_log}", *kept)

    def _nodes(self) -> tuple[str, ...]:
        if not self.has_nodes:
            # Without nodes nothing routes to the kubernetes Service, and a loopback address may not stand in it.
            return ("--endpoint-reconciler-type=none",)
        certificate, key = self.authority.client("kubelet-client", "/O=system:masters/CN=kube-apiserver")
        return (
            # The node's name does not resolve.
            "--kubelet-preferred-address-types=InternalIP",
            f"--kubelet-certificate-authority={self.authority.certificate}",
            f"--kubelet-client-certificate={certificate}",
            f"--kubelet-client-key={key}",
        )


_LOCAL = (
    "DNS:localhost",
    "IP:127.0.0.1",
    *(f"DNS:kubernetes{suffix}" for suffix in ("", ".default", ".default.svc", ".default.svc.cluster.local")),
)


def controller_manager(binary: Path, kubeconfig: Path, authority: Authority, directory: Path) -> Program:
    """Describe the controller manager; the directory is for what it makes itself."""
    _, private = authority.service_account_keys()
    return Program(
        "kube-controller-manager",
        (
            str(binary),
            f"--kubeconfig={kubeconfig}",
            f"--service-account-private-key-file={private}",
            f"--root-ca-file={authority.certificate}",
            f"--cluster-signing-cert-file={authority.certificate}",
            f"--cluster-signing-key-file={authority.key}",
            f"--flex-volume-plugin-dir={directory / 'flexvolume'}",
            "--use-service-account-credentials=true",
            "--leader-elect=false",
            "--secure-port=0",
            # Default 15 s: how late a claim notices what a test repaired.
            "--pvclaimbinder-sync-period=2s",
            "--profiling=false",
            *_CLIENT_LIMITS,
        ),
    )


def scheduler(binary: Path, configuration: Path) -> Program:
    """Describe the scheduler."""
    return Program("kube-scheduler", (str(binary), f"--config={configuration}", "--secure-port=0"))


def scheduler_configuration(kubeconfig: Path) -> dict[str, object]:
    """Return what the scheduler reads from its configuration file."""
    return {
        "apiVersion": "kubescheduler.config.k8s.io/v1",
        "kind": "KubeSchedulerConfiguration",
        "clientConnection": {"kubeconfig": str(kubeconfig), "qps": 200, "burst": 400},
        "leaderElection": {"leaderElect": False},
        # Default 10 s: how late a pod is tried again that could not be scheduled.
        "podMaxBackoffSeconds": 2,
    }
