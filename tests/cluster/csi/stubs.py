"""Message classes of the services that the driver serves, generated on this machine from the pinned protocol files.

Generated code is bound to the installed grpcio-tools, so it is never committed. It lives in a cache of the user whose
key covers the pins and the generator. The protocol files come from the Go modules that `proto/go.mod` pins. Only the
messages are generated: the server reads the services from the descriptors, so that calls are plain Python methods.
"""

import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import Any

PINS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "proto")

SOURCES = {
    "csi": ("github.com/container-storage-interface/spec", "csi.proto"),
    "pluginregistration": ("k8s.io/kubelet", "pkg/apis/pluginregistration/v1/api.proto"),
}
"""Name of the generated module (without `_pb2`) -> Go module and path of the protocol file inside it."""


@functools.cache
def load(name: str) -> Any:
    """Return the generated module for one key of SOURCES; the first call on a machine downloads and generates."""
    path = os.path.join(_generated(), f"{name}_pb2.py")
    spec = importlib.util.spec_from_file_location(f"{name}_pb2", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _generated() -> str:
    """Return the directory of the generated modules, making it whole or not at all."""
    target = os.path.join(_cache(), _key())
    if not os.path.isdir(target):
        os.makedirs(_cache(), exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_cache(), ignore_cleanup_errors=True) as scratch:
            output = os.path.join(scratch, "generated")
            os.mkdir(output)
            _generate(scratch, output)
            _move(output, target)
    return target


def _move(output: str, target: str) -> None:
    try:
        os.rename(output, target)
    except OSError:
        if not os.path.isdir(target):  # else another process was faster, and its result is as good
            raise


def _generate(scratch: str, output: str) -> None:
    directories = _module_directories()
    for name, (module, path) in SOURCES.items():
        shutil.copyfile(os.path.join(directories[module], path), os.path.join(scratch, f"{name}.proto"))
    protos = [f"{name}.proto" for name in SOURCES]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", f"-I{scratch}", f"--python_out={output}", *protos], check=True
    )


def _module_directories() -> dict[str, str]:
    """Download the pinned modules if necessary, and return their directories."""
    modules = [module for module, _ in SOURCES.values()]
    command = ["go", "mod", "download", "-json", *modules]
    text = subprocess.run(
        command, cwd=PINS, env={**os.environ, "GOWORK": "off"}, check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    directories = {}
    decoder = json.JSONDecoder()
    while text := text.lstrip():
        module, end = decoder.raw_decode(text)
        directories[module["Path"]] = module["Dir"]
        text = text[end:]
    return directories


def _cache() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "cinderblock", "csi-stubs")


def _key() -> str:
    digest = hashlib.sha256(importlib.metadata.version("grpcio-tools").encode())
    digest.update(repr(SOURCES).encode())
    for name in ("go.mod", "go.sum"):
        with open(os.path.join(PINS, name), "rb") as pins:
            digest.update(pins.read())
    return digest.hexdigest()[:16]
