"""Images and programs that the Dockerfile and the chart take from elsewhere are fixed by their content."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def test_images_are_named_by_digest() -> None:
    assert DIGEST.search(re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)[0])
    assert re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE) == ["${BUILD_IMAGE}", "${BASE_IMAGE}"]
    values = yaml.safe_load((ROOT / "charts" / "cinderblock" / "values.yaml").read_text())
    assert DIGEST.search(values["embeddedStore"]["image"]["tag"])


def test_uv_is_installed_by_hash_only() -> None:
    for path in ("Dockerfile", "tests/setup.sh"):
        text = (ROOT / path).read_text()
        installs = re.findall(r"pip\"? install(?:[^\n]*\\\n)*[^\n]*", text)
        assert installs, path
        for install in installs:
            # uv itself installs the locked packages, also with hashes, and the wheel that was built right before.
            assert "--require-hashes" in install or "--no-deps" in install, install
    assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", (ROOT / "uv.requirements.txt").read_text())) >= 2


def test_pip_is_removed_from_the_base_image(tmp_path: Path) -> None:
    packages, debian = "usr/local/lib/python3.12/site-packages", "usr/lib/python3/dist-packages"
    unwanted = [
        f"{packages}/pip/__init__.py",
        f"{packages}/pip-26.1.dist-info/METADATA",
        f"{debian}/pip/__main__.py",
        "usr/local/lib/python3.12/ensurepip/__init__.py",
        "usr/local/bin/pip",
        "usr/local/bin/pip3",
        "usr/local/bin/pip3.12",
        "usr/bin/pip3",
    ]
    kept = ["usr/local/bin/python3", f"{packages}/pipeline/__init__.py", "usr/bin/pipe", "etc/pip.conf"]
    for name in (*unwanted, *kept):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    [command] = re.findall(r"^RUN (find / (?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    subprocess.run(["sh", "-c", command.replace("find /", f"find {tmp_path}", 1)], check=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(kept)
