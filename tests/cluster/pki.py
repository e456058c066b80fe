"""Keys, certificates and tokens. Each cluster has its own authority, so that every connection can be verified."""

import csv
import secrets
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.cluster import files
from tests.cluster.errors import ClusterError

_AUTHORITY = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign", "subjectKeyIdentifier=hash")
_LEAF = (
    "basicConstraints=critical,CA:FALSE",
    "keyUsage=critical,digitalSignature",
    "subjectKeyIdentifier=hash",
    "authorityKeyIdentifier=keyid",
)
_DAYS = "3650"

ADMINISTRATOR = "admin"
_USERS = {
    ADMINISTRATOR: ("admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", ""),
    "scheduler": ("system:kube-scheduler", ""),
    "proxy": ("system:kube-proxy", ""),
}
"""User name and group of each client. Kubernetes binds the right roles to these names by default."""


class Authority:
    """A directory of key pairs, which are created on first use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = directory / "ca.crt"
        self.key = directory / "ca.key"
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
        if not self.certificate.exists():
            self._make("ca", "/CN=cinderblock-test-cluster", _AUTHORITY, [])

    def server(self, name: str, alternatives: list[str]) -> tuple[Path, Path]:
        """Return certificate and key of a server that is reached under these names, as in `IP:127.0.0.1`."""
        extensions = [*_LEAF, "extendedKeyUsage=serverAuth", f"subjectAltName={','.join(alternatives)}"]
        return self._issued(name, f"/CN={name}", extensions)

    def client(self, name: str, subject: str) -> tuple[Path, Path]:
        """Return certificate and key of a client with this subject."""
        return self._issued(name, subject, [*_LEAF, "extendedKeyUsage=clientAuth"])

    def service_account_keys(self) -> tuple[Path, Path]:
        """Return the public and the private key that ServiceAccount tokens are made with."""
        private, public = self.directory / "sa.key", self.directory / "sa.pub"
        if not public.exists():
            _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(private))
            _openssl("pkey", "-in", str(private), "-pubout", "-out", str(public))
        return public, private

    def _issued(self, name: str, subject: str, extensions: list[str]) -> tuple[Path, Path]:
        if not (self.directory / f"{name}.crt").exists():
            self._make(name, subject, extensions, ["-CA", str(self.certificate), "-CAkey", str(self.key)])
        return self.directory / f"{name}.crt", self.directory / f"{name}.key"

    def _make(self, name: str, subject: str, extensions: Iterable[str], by: list[str]) -> None:
        # A configuration of our own: the machine's adds extensions that then stand there twice.
        configuration = self.directory / "openssl.cnf"
        configuration.write_text("[req]\ndistinguished_name = name\n[name]\n")
        partial, key = self.directory / f".{name}.partial", self.directory / f"{name}.key"
        _openssl(
            "req", "-x509", "-config", str(configuration), "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-noenc", "-days", _DAYS, "-subj", subject, "-keyout", str(key), "-out", str(partial), *by,
            *(word for extension in extensions for word in ("-addext", extension)),
        )  # fmt: skip
        partial.rename(self.directory / f"{name}.crt")


def tokens(directory: Path, node: str) -> dict[str, str]:
    """Return a token for each component's user, made at the first call, in a file for the API server."""
    path = token_file(directory)
    users = {**_USERS, "kubelet": (f"system:node:{node}", "system:nodes")}
    if not path.exists():
        lines = [f"{secrets.token_hex(16)},{name},{who},{group}\n" for who, (name, group) in users.items()]
        files.write(path, "".join(lines), 0o600)
    with path.open(newline="") as file:
        return {who: token for token, _, who, *_ in csv.reader(file)}


def token_file(directory: Path) -> Path:
    """Return where the API server finds the tokens."""
    return directory / "tokens.csv"


def _openssl(*arguments: str) -> None:
    done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ClusterError(f"`openssl {' '.join(arguments)}` failed:\n{done.stderr}")
