from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from cinderblock.errors import SourceError, TargetError
from cinderblock.format.entries import Entry, EntryKind
from cinderblock.volume.capabilities import Capability, ProcessCapabilities, assess_source, assess_target
from cinderblock.volume.metadata_support import Feature, MetadataSupport
from cinderblock.volume.tree.writer import TreeWriter
from tests.support.mover.compare import compare_trees
from tests.support.mover.copies import CopyResult, copy_tree
from tests.support.mover.trees import ACCESS_ACL, NET_BIND_SERVICE, edit_tree, make_tree
from tests.support.mover.unprivileged import NOBODY, run_as_user, run_with_capabilities

BASELINE = (
    Capability.CHOWN,
    Capability.DAC_OVERRIDE,
    Capability.FOWNER,
    Capability.FSETID,
    Capability.MKNOD,
    Capability.SETFCAP,
)
"""Capabilities that the mover needs and that Pod Security ``baseline`` allows."""
ALL = ProcessCapabilities(0, frozenset(Capability), is_confined=False)
NONE = ProcessCapabilities(NOBODY, frozenset(), is_confined=False)
ROOT = Entry(b"", EntryKind.DIRECTORY, mode=0o755)


@pytest.fixture
def workplace(tmp_path: Path, as_root: None) -> Path:
    """Return a directory of the unprivileged user."""
    place = tmp_path / "workplace"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    return place


def test_process_with_all_capabilities_warns_of_nothing(tmp_path: Path) -> None:
    assert assess_source(str(tmp_path), ALL).warnings() == []
    assert assess_target(str(tmp_path), ALL).warnings() == []


def test_process_without_capabilities_warns_of_every_loss(tmp_path: Path) -> None:
    assert assess_source(str(tmp_path), NONE).warnings() == [
        "running as user 65534 without DAC_OVERRIDE: the backup fails at files that this user may not read"
    ]
    assert assess_target(str(tmp_path), NONE).warnings() == [
        "no CAP_CHOWN: restored files belong to user 65534",
        "no CAP_FOWNER: modes and times of existing files of other users are not restored",
        "no CAP_FSETID: setgid bits of files of other groups are not restored",
        "no CAP_SETFCAP: file capabilities are not restored",
        "no CAP_MKNOD: device nodes are not restored",
    ]


def test_losses_that_depend_on_the_backup_cause_no_warning(tmp_path: Path) -> None:
    assessed = assess_target(str(tmp_path), ProcessCapabilities(0, frozenset(BASELINE), is_confined=False))
    assert assessed.warnings() == []
    assert not assessed.keeps(Feature.TRUSTED_ATTRIBUTES)


def test_user_namespace_causes_a_warning(tmp_path: Path) -> None:
    assessed = assess_target(str(tmp_path), ProcessCapabilities(0, frozenset(Capability), is_confined=True))
    assert assessed.warnings() == [
        "running in a user namespace: owners outside its range are not restored",
        "no CAP_MKNOD: device nodes are not restored",
    ]


def test_file_system_without_attributes_causes_a_warning(target: Path, mount: Callable[..., Path]) -> None:
    mount("-t", "ramfs", "ramfs", at=target)
    assert assess_target(str(target), ALL).warnings() == [
        "the target's file system has no extended attributes: they are not restored",
        "the target's file system has no POSIX ACLs: they are not restored",
    ]


def test_missing_directory_cannot_be_assessed(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        assess_source(str(tmp_path / "nowhere"))
    with pytest.raises(TargetError, match="nowhere"):
        assess_target(str(tmp_path / "nowhere"))


def test_capabilities_are_read_from_the_kernel(workplace: Path) -> None:
    assert run_as_user(ProcessCapabilities.of_this_process, cwd=workplace) == NONE
    kept = run_with_capabilities(ProcessCapabilities.of_this_process, BASELINE)
    assert kept == ProcessCapabilities(0, frozenset(BASELINE), is_confined=False)


def test_user_can_back_up_and_restore_a_tree_of_its_own(workplace: Path) -> None:
    def work() -> tuple[list[str], CopyResult, list[str]]:
        make_tree("source", privileged=False)
        os.mkdir("target")
        result = copy_tree("source", "target")
        first = compare_trees("source", "target", holes=True)
        edit_tree("target", seed=3, edits=40)
        copy_tree("source", "target")
        return first, result, compare_trees("source", "target", holes=True)

    first, result, second = run_as_user(work, cwd=workplace)
    assert first == []
    assert result.losses == []
    assert second == []


def test_user_restores_what_it_can_and_counts_the_rest(workplace: Path) -> None:
    def work() -> dict[str, int]:
        os.mkdir("target")
        with TreeWriter("target") as writer:
            writer.put(ROOT)
            file = writer.put(
                Entry(
                    b"setuid",
                    EntryKind.FILE,
                    mode=0o6755,
                    xattrs=((b"security.capability", NET_BIND_SERVICE), (b"trusted.t", b""), (b"user.kept", b"1")),
                )
            )
            assert file is not None
            file.finish()
            writer.put(Entry(b"u-null", EntryKind.CHARACTER_DEVICE, mode=0o666, rdev=os.makedev(1, 3)))
            writer.put(Entry(b"v-null-again", EntryKind.HARDLINK, target=b"u-null"))
            writer.put(Entry(b"w-link", EntryKind.SYMLINK, target=b"x", uid=7))
            writer.finish()
            return {feature.name: writer.losses.count(feature) for feature in Feature if writer.losses.count(feature)}

    assert run_as_user(work, cwd=workplace) == {
        "OWNERS": 3,
        "FILE_CAPABILITIES": 1,
        "DEVICE_NODES": 1,
        "TRUSTED_ATTRIBUTES": 1,
    }
    target = workplace / "target"
    assert sorted(path.name for path in target.iterdir()) == ["setuid", "w-link"]
    assert stat.S_IMODE((target / "setuid").stat().st_mode) == 0o755
    assert os.listxattr(target / "setuid") == ["user.kept"]


def test_user_can_restore_to_a_volume_whose_root_belongs_to_root(workplace: Path) -> None:
    target = workplace / "target"
    target.mkdir()
    os.chown(target, 0, NOBODY)
    target.chmod(0o2775)

    def work() -> list[str]:
        with TreeWriter("target") as writer:
            writer.put(ROOT._replace(uid=NOBODY, gid=NOBODY, mtime_ns=1))
            file = writer.put(Entry(b"file", EntryKind.FILE, mode=0o640, uid=NOBODY, gid=NOBODY, mtime_ns=2))
            assert file is not None
            file.finish()
            writer.finish()
            return writer.losses.summaries()

    assert run_as_user(work, cwd=workplace) == [
        "owners of files that could not be kept: 1",
        "modes and times of files of other users that could not be kept: 1",
    ]
    status = (target / "file").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (
        NOBODY,
        NOBODY,
        0o640,
        2,
    )


def test_file_of_another_user_that_cannot_be_written_is_replaced(workplace: Path) -> None:
    target = workplace / "target"
    target.mkdir()
    os.chown(target, NOBODY, NOBODY)
    (target / "file").write_bytes(b"of root")

    def work() -> None:
        with TreeWriter("target") as writer:
            writer.put(ROOT._replace(uid=NOBODY, gid=NOBODY))
            file = writer.put(Entry(b"file", EntryKind.FILE, mode=0o600, uid=NOBODY, gid=NOBODY, size=3))
            assert file is not None
            assert file.is_blank
            file.write(0, b"new")
            file.finish()
            writer.finish()

    run_as_user(work, cwd=workplace)
    assert ((target / "file").read_bytes(), (target / "file").stat().st_uid) == (b"new", NOBODY)


def test_root_with_baseline_capabilities_keeps_all_but_trusted_attributes(tmp_path: Path, as_root: None) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(str(source))
    target.mkdir()
    result = run_with_capabilities(lambda: copy_tree(str(source), str(target)), BASELINE)
    assert result.losses == []
    assert compare_trees(str(source), str(target), holes=True) == [
        "'privileged_attributes/symlink': attribute trusted.of-a-symlink b's' and None",
        "'privileged_attributes/trusted': attribute trusted.kept b't' and None",
    ]


def test_root_with_baseline_capabilities_can_restore_over_anything(tmp_path: Path, as_root: None) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(str(source), privileged=False)
    make_tree(str(target), seed=2)
    edit_tree(str(target), seed=3, edits=50)
    run_with_capabilities(lambda: copy_tree(str(source), str(target)), BASELINE)
    assert compare_trees(str(source), str(target), holes=True) == []


def test_unexpected_loss_is_an_error(workplace: Path) -> None:
    def work() -> str:
        os.mkdir("target")
        with TreeWriter("target", MetadataSupport()) as writer:
            writer.put(ROOT)
            with pytest.raises(TargetError) as caught:
                writer.put(Entry(b"link", EntryKind.SYMLINK, target=b"x", uid=7))
            return caught.value.message

    assert run_as_user(work, cwd=workplace) == (
        "the target refuses owners of files, as NFS with root_squash, EFS access points, SMB and blobfuse do: "
        "use fidelity BestEffort (--best-effort) to continue and count them (EPERM: link)"
    )


def test_attributes_unsupported_by_the_file_system_are_counted(target: Path, mount: Callable[..., Path]) -> None:
    mount("-t", "ramfs", "ramfs", at=target)
    with TreeWriter(str(target)) as writer:
        writer.put(ROOT)
        file = writer.put(
            Entry(
                b"file",
                EntryKind.FILE,
                mode=0o640,
                xattrs=((b"system.posix_acl_access", ACCESS_ACL), (b"user.a", b""), (b"user.b", b"")),
            )
        )
        assert file is not None
        file.finish()
        writer.finish()
        assert writer.losses.summaries() == [
            "POSIX ACLs that could not be kept: 1",
            "extended attributes that could not be kept: 1",
        ]


def test_user_without_cap_fowner_can_read_files_of_others(workplace: Path) -> None:
    """The kernel rejects O_NOATIME for files of other users; they must still be read."""
    (workplace / "source").mkdir(mode=0o755)
    (workplace / "source" / "of-root").write_bytes(b"readable")
    (workplace / "source" / "own").write_bytes(b"readable")
    os.chown(workplace / "source" / "own", NOBODY, NOBODY)

    def work() -> bytes:
        os.mkdir("target")
        copy_tree("source", "target")
        return Path("target/of-root").read_bytes() + Path("target/own").read_bytes()

    assert run_as_user(work, cwd=workplace) == b"readable" * 2
