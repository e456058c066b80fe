"""Processes load only parts of the ``kubernetes`` package: a mover loads nothing, and no process loads a typed API."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
STORE_COMMANDS = ("backup", "delete", "list", "restore", "rewrap", "show", "verify")
KOPF_MODELS = {"v1_managed_fields_entry", "v1_object_meta", "v1_owner_reference"}
"""The models that kopf names in its own types; every other one would cost memory for nothing."""


def loaded_modules(*modules: str) -> set[str]:
    """Return all modules of a new process that has imported ``modules``."""
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_movers_and_store_commands_load_neither_kubernetes_nor_kopf() -> None:
    """With the S3 client, which the store's factory imports only when a store is opened."""
    commands = [f"cinderblock.cli.commands.{name}" for name in STORE_COMMANDS]
    loaded = loaded_modules("cinderblock.mover.main", "cinderblock.store.s3.client", *commands)
    assert "boto3" in loaded
    assert not {"kubernetes", "kopf", "aiohttp"} & loaded


def test_movers_load_no_models_of_objects_that_they_do_not_get() -> None:
    """Each mover would pay for them at its start."""
    loaded = loaded_modules("cinderblock.mover.main")
    assert "cinderblock.api.mover" in loaded
    unused = {
        f"cinderblock.api.v1alpha1.{name}" for name in ("backup", "restore", "retention", "schedule", "cluster_store")
    }
    assert not unused & loaded


@pytest.mark.parametrize("process", ["controller.manager", "gateway.main"])
def test_servers_load_no_typed_api(process: str) -> None:
    loaded = loaded_modules(f"cinderblock.{process}")
    assert "kubernetes.aio.client.api_client" in loaded
    assert not [name for name in loaded if re.match(r"kubernetes\.(aio\.)?client\.api(\.|$)", name)]
    models = {name.rpartition(".models.")[2] for name in loaded if re.match(r"kubernetes\..*\.models\.", name)}
    assert models <= KOPF_MODELS


def test_image_keeps_the_bytecode_of_loaded_models() -> None:
    """The image drops the bytecode of all others, and nothing can be compiled at run time."""
    kept = set(re.findall(r"! -name '([a-z0-9_]+)\.\*'", (ROOT / "Dockerfile").read_text()))
    assert kept == KOPF_MODELS | {"__init__"}


def test_dependencies_have_floors() -> None:
    """Without a floor, a resolver may choose releases of many years ago."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [dependency for dependency in project["dependencies"] if ">=" not in dependency]
