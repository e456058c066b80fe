#!/usr/bin/env python3
"""Generate the files of our CustomResourceDefinitions, here and in the chart, from the models.

Usage: ``python crds/generate.py`` writes the files. With ``--check`` it writes nothing, and exits with 1 if a file is
out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from typing_extensions import override

from cinderblock.api.crd.definitions import RESOURCES, CustomResource, definition

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = (ROOT / "crds", ROOT / "charts" / "cinderblock" / "crds-files")
HEADER = "# Written by crds/generate.py from operator/cinderblock/api; change the models, not this file.\n"


class _Dumper(yaml.SafeDumper):
    """Writes repeated values out instead of as anchors, which not every tool for CustomResourceDefinitions reads."""

    @override
    def ignore_aliases(self, data: object) -> bool:
        return True


def content(resource: CustomResource) -> str:
    """Return the content of the file of one CustomResourceDefinition."""
    return HEADER + yaml.dump(definition(resource), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def outdated() -> list[Path]:
    """Return the files that are missing or out of date."""
    return [path for path, text in _files().items() if not path.exists() or path.read_text("utf-8") != text]


def write() -> None:
    """Write all files."""
    for path, text in _files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")


def _files() -> dict[Path, str]:
    return {folder / f"{resource.plural}.yaml": content(resource) for folder in FOLDERS for resource in RESOURCES}


def main(arguments: list[str]) -> int:
    """Run the program and return its exit code."""
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
