"""Write small files atomically, and only if their content changes: kube-proxy exits if its file is written."""

import os
from pathlib import Path


def write(path: Path, text: str, mode: int = 0o644) -> Path:
    """Make the file hold the text, readable as `mode` says from the first byte on; return its path."""
    if path.exists() and path.read_text() == text:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = partial(path)
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    temporary.rename(path)
    return path


def partial(path: Path) -> Path:
    """Return where a file's text is before it is whole."""
    return path.with_name(f".{path.name}.partial")
