"""The real program of a mover Job, run on a folder or a file of this machine instead of a mounted volume.

It knows nothing of one version: whatever code of Cinderblock is on the path, reads the task that a Job carries.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cinderblock.mover.main import main

TASK_VARIABLE = "CINDERBLOCK_TASK"
OWNER_NAME_ANNOTATION = "cinderblock.io/owner-name"

Job = dict[str, Any]
Secrets = Mapping[str, Mapping[str, bytes]]
"""Data of Secrets by their names."""


def task_of(job: Job) -> dict[str, Any]:
    """Return the task that a mover Job carries."""
    task: dict[str, Any] = json.loads(_environment(job)[TASK_VARIABLE])
    return task


def owner_name(job: Job) -> str:
    """Return the name of the VolumeBackup or VolumeRestore that a Job works for."""
    return str(job["metadata"]["annotations"][OWNER_NAME_ANNOTATION])


def volume_of(job: Job, volumes: Path) -> Path:
    """Return the place that stands for the volume of a Job.

    A backup reads ``<volumes>/<name of the claim>``. A restore writes ``<volumes>/<name of the VolumeRestore>``, which
    is made: a new volume of that size and kind.
    """
    task = task_of(job)
    if task["operation"] == "backup":
        return volumes / task["backup"]["volumeName"]
    target = volumes / owner_name(job)
    if task["volumeMode"] == "Block":
        with target.open("wb") as file:
            file.truncate(task["backup"]["volumeBytes"])
    else:
        target.mkdir()
    return target


def run_mover(job: Job, volume: Path, secrets: Secrets, scratch: Path) -> tuple[int, str]:
    """Run the mover of a Job on ``volume``. Returns its exit code and its termination message.

    Args:
        job: the Job as the API server has it.
        volume: the directory or the image that it works on.
        secrets: all that its Secret volumes may name.
        scratch: an empty directory for its files.
    """
    environment, task = _environment(job), task_of(job)
    environment[TASK_VARIABLE] = json.dumps(task | {"path": str(volume)})
    for mounted in job["spec"]["template"]["spec"]["volumes"]:
        if "secret" in mounted:
            directory = scratch / mounted["name"]
            directory.mkdir()
            for name, value in secrets[mounted["secret"]["secretName"]].items():
                (directory / name).write_bytes(value)
    log = scratch / "termination-log"
    log.touch()
    code = main(environment, secrets_directory=str(scratch), termination_log=str(log), out=io.StringIO())
    return code, log.read_text()


def _environment(job: Job) -> dict[str, str]:
    [container] = job["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}
