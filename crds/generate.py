#!/usr/bin/env python3
"""Write our CustomResourceDefinitions, here and where the chart reads them, from the models.

Usage: ``python crds/generate.py`` writes the files; with ``--check`` nothing is written, and the exit code is 1 if a
file is not what would be written.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

from cinderblock.api.crd.definitions import RESOURCES, CustomResource, definition

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "crds", ROOT / "charts" / "cinderblock" / "crds-files")
HEADER = "# Written by crds/generate.py from operator/cinderblock/api; change the models, not this file.\n"


def content(resource: CustomResource) -> str:
    """The file of one CustomResourceDefinition."""
    return HEADER + yaml.safe_dump(definition(resource), sort_keys=False, width=120, allow_unicode=True)


def outdated() -> list[Path]:
    """Files that are missing or differ from what would be written."""
    return [path for path, text in _files().items() if not path.exists() or path.read_text("utf-8") != text]


def write() -> None:
    """Write every file."""
    for path, text in _files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _files() -> dict[Path, str]:
    return {folder / f"{resource.plural}.yaml": content(resource) for folder in FOLDERS for resource in RESOURCES}


def main(arguments: list[str]) -> int:
    """Run the program and give its exit code."""
    if arguments not in ([], ["--check"]):
        sys.stderr.write(f"{__doc__}\n")
        return 2
    stale = outdated()
    if arguments:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is not up to date: run python crds/generate.py\n")
        return 1 if stale else 0
    write()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
