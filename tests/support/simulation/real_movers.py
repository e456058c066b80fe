"""A simulated cluster with real movers, so that restores return what backups stored.

The content of a volume is a text such as ``shop-two``. Its first word names a file that never changes, so that an
incremental backup shares packs with its parent.
"""

from __future__ import annotations

import random
import tempfile
from contextlib import nullcontext
from pathlib import Path

from cinderblock.api.mover import MoverOperation, MoverReport
from cinderblock.archiver.archiver import run_backup
from cinderblock.mover.copies import run_copies
from cinderblock.mover.verification import run_verification
from cinderblock.repository.copying.copy_backup import CopyPlace
from cinderblock.restorer.restorer import run_restore
from cinderblock.store.base import ObjectStore
from tests.support.mover.volumes_in_memory import MemorySource
from tests.support.simulation.api import Object
from tests.support.simulation.cluster import HALF, Cluster


def volume(content: str) -> MemorySource:
    """Return a tree with ``content``, and with a file that is the same in all backups of the volume."""
    source = MemorySource()
    stamp = 1 + random.Random(content).randrange(1 << 20)
    source.add(b"content", (0, content.encode()), stamp=stamp)
    source.add(b"shared", (0, shared(content)))
    return source


def shared(content: str) -> bytes:
    """Return the content of the second file of a volume."""
    return random.Random(content.partition("-")[0]).randbytes(3000)


def found_in(target: Path) -> str:
    """Return the content of a restored tree, whose two files must belong together."""
    content = (target / "content").read_text()
    is_restorable = (target / "shared").read_bytes() == shared(content)
    return content if is_restorable and len(list(target.iterdir())) == 2 else f"a mixture: {content}"


class RealMovers(Cluster):
    """The controllers and the kubelet of `Cluster` with real movers.

    Attributes:
        copies: the store that gets copies, if it is not `Cluster.store` with another prefix.
    """

    copies: ObjectStore | None = None

    def work(self, pod: Object) -> MoverReport:
        """Run the engine as a mover does."""
        task = self.task_of(pod)
        if task.operation is MoverOperation.VERIFY:
            return run_verification(task, self.store, self.keys)
        if task.copies is not None:
            source = CopyPlace(self.store, task.store.prefix, self.keys)
            target = CopyPlace(self.copies or self.store, task.copies.target.prefix, self.keys)
            return run_copies(task, task.copies, source, target)
        name = self._volume_under(pod)
        if task.operation is MoverOperation.BACKUP:
            self.kept[task.backup.backup_id] = self.contents[name]
            source = volume(self.contents[name])
            return run_backup(task, self.store, self.keys, opener=lambda *_: nullcontext(source))
        with tempfile.TemporaryDirectory() as directory:
            self.contents[name] = HALF
            report = run_restore(task.model_copy(update={"path": directory}), self.store, self.keys)
            self.contents[name] = found_in(Path(directory))
        return report
