"""Detection of the upper directory of an overlay, whose trusted.* attributes a mover cannot read."""

from __future__ import annotations

import stat
from dataclasses import dataclass, field

from cinderblock.volume.metadata_support import MAX_EXAMPLES, format_example
from cinderblock.volume.tree.rows import TYPE, Rows


@dataclass(slots=True)
class Whiteouts:
    """Counts character devices 0/0, by which an overlay marks removed names (overlayfs.rst of the kernel, whiteouts).

    The overlay records in trusted.overlay.* attributes which directories hide those of the layers below.
    """

    objects: int = 0
    examples: list[str] = field(default_factory=list)
    _seen: set[bytes] = field(default_factory=set)

    def count_in(self, rows: Rows) -> None:
        """Count the whiteouts among the objects of a walk. In an overlay, most of them are hard links to one inode."""
        for row, number in rows.numbers.items():
            if number == 0 and rows.columns.modes[row] & TYPE == stat.S_IFCHR:
                self._seen.add(rows.paths[row])
                self._count(rows.paths[row])
        for row, holder in rows.links.items() if self._seen else ():
            if holder in self._seen:
                self._count(rows.paths[row])

    def _count(self, path: bytes) -> None:
        self.objects += 1
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(format_example(path))

    def summaries(self) -> list[str]:
        """Return the warnings if there are whiteouts."""
        if not self.objects:
            return []
        overlay = f"{self.objects} whiteouts: this is the upper directory of an overlay"
        effect = "its trusted.overlay.* attributes are not in the backup, so hidden names may reappear after a restore"
        return [f"{overlay}; {effect} ({', '.join(self.examples)})"]
