"""Command lines and configurations of kubelet, kube-proxy and CoreDNS."""

import json
import re
from pathlib import Path

from tests.cluster import files
from tests.cluster.pki import Authority
from tests.cluster.programs import Program
from tests.cluster.settings import NODE, Settings

DOMAIN = "cluster.local"


def kubelet(settings: Settings, binary: Path, kubeconfig: Path, authority: Authority) -> Program:
    """Describe the kubelet, writing its configuration."""
    certificate, key = authority.server("kubelet", [f"IP:{settings.address}", f"DNS:{NODE}"])
    directory = settings.directory
    configuration = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": settings.address,
        "port": settings.ports["kubelet"],
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": settings.ports["kubelet-health"],
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(authority.certificate)},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(certificate),
        "tlsPrivateKeyFile": str(key),
        "clusterDomain": DOMAIN,
        "clusterDNS": [settings.address],
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "podLogsDir": str(directory / "pod-logs"),
        "volumePluginDir": str(directory / "flexvolume"),
        # No systemd is needed, and control groups of either version do.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{settings.name}",
        "failCgroupV1": False,
        "enforceNodeAllocatable": [],
        "failSwapOn": False,
        "oomScoreAdj": 0,
        # kube-proxy's chains are enough.
        "makeIPTablesUtilChains": False,
        # Images come from archives and could not be pulled again: never collect them.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        # A test's pod should start and be gone within seconds.
        "syncFrequency": "5s",
        "nodeStatusUpdateFrequency": "5s",
        "kubeAPIQPS": 200,
        "kubeAPIBurst": 400,
        "eventRecordQPS": 0,
    }
    path = write_configuration(settings, "kubelet.json", configuration)
    return Program(
        "kubelet",
        (
            str(binary),
            f"--config={path}",
            f"--kubeconfig={kubeconfig}",
            f"--root-dir={settings.kubelet_directory}",
            f"--cert-dir={directory / 'pki'}",
            f"--hostname-override={NODE}",
            f"--node-ip={settings.address}",
        ),
    )


def proxy(settings: Settings, binary: Path, kubeconfig: Path) -> Program:
    """Describe kube-proxy, writing its configuration."""
    configuration = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "clientConnection": {"kubeconfig": str(kubeconfig)},
        "clusterCIDR": settings.pods,
        "hostnameOverride": NODE,
        "healthzBindAddress": f"127.0.0.1:{settings.ports['proxy-health']}",
        "metricsBindAddress": f"127.0.0.1:{settings.ports['proxy-metrics']}",
        "oomScoreAdj": 0,
        "iptables": {"localhostNodePorts": False, "minSyncPeriod": "100ms"},
        # Zero leaves the kernel's limits alone, which it may not be allowed to write.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    path = write_configuration(settings, "kube-proxy.json", configuration)
    return Program("kube-proxy", (str(binary), f"--config={path}"))


def dns(settings: Settings, binary: Path, kubeconfig: Path) -> Program:
    """Describe CoreDNS on the bridge's address: what pods ask first, and the only name server they know."""
    lines = [
        f"bind {settings.address}",
        "errors",
        f"kubernetes {DOMAIN} in-addr.arpa {{\n    kubeconfig {kubeconfig}\n    ttl 2\n  }}",
        *_forwarding(Path("/etc/resolv.conf")),
        "cache 2",
    ]
    text = ".:53 {\n" + "".join(f"  {line}\n" for line in lines) + "}\n"
    path = files.write(settings.directory / "conf" / "Corefile", text)
    return Program("coredns", (str(binary), f"-conf={path}"))


def _forwarding(resolver: Path) -> list[str]:
    """Forward other names to this machine's name servers. CoreDNS does not start without a target."""
    known = resolver.exists() and re.search(r"^nameserver\s", resolver.read_text(), re.MULTILINE)
    return [f"forward . {resolver}"] if known else []


def write_configuration(settings: Settings, name: str, configuration: dict[str, object]) -> Path:
    """Write a configuration file as JSON, which is YAML too, and return its path."""
    return files.write(settings.directory / "conf" / name, json.dumps(configuration, indent=2))
