"""Record what a release leaves behind, for tests/integration/test_upgrades.py. Takes about two minutes, as root:

    python -m tests.upgrade COMMIT tests/data/releases/VERSION

COMMIT is the commit of the release; its code makes everything (`git archive`), with the packages of this environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def unpack(commit: str, directory: Path) -> None:
    """Write the tree of a commit to a directory. Raises CalledProcessError if the repository lacks the commit."""
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    subprocess.run(["tar", "-x", "-C", str(directory)], input=archive, check=True)


def environment_of(code: Path) -> dict[str, str]:
    """Return the environment in which the code of a release is imported, and from here only what it lacks."""
    places = (code / "operator", code, ROOT)
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, places))}


def main(commit: str, directory: Path) -> None:
    """Record a release."""
    with tempfile.TemporaryDirectory(prefix="release-") as scratch:
        unpack(commit, Path(scratch))
        if directory.exists():
            shutil.rmtree(directory)
        command = [sys.executable, "-m", "tests.upgrade.recording", str(directory.resolve())]
        subprocess.run(command, cwd=scratch, env=environment_of(Path(scratch)), check=True)
    named = subprocess.run(["git", "rev-parse", commit], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    (directory / "commit").write_text(named.stdout)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
