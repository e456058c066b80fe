"""Volumes as seen inside a pod: a block device, or a file tree.

Words. *source*: what a backup reads. *target*: what a restore writes. *data range*: a run of bytes that may hold
something else than zeros. *hole*: a run that reads as zeros and takes no space. *content*: the bytes of one file or of
the device, the same interface for both. *fidelity*: what this process is able to keep. *loss*: what it could not keep.

Content (`content`), the same for a file in a tree and for a device:

    SourceContent   .size  .data_ranges() -> Iterator[DataRange]  .read_into(offset, buffer) -> int
                    .has_changed() -> bool  .close()                             context manager
    TargetContent   .size  .is_blank  .read_into(offset, buffer) -> int  .write(offset, data)
                    .clear(offset, length)  .finish()  .close()                  context manager

A backup of a tree:

    with TreeReader(root) as reader:                     # tree_reader
        for entry in reader.walk():                      # Entry without extents; parents first, by path components
            if entry.kind is EntryKind.FILE:
                with reader.open_file(entry) as file:    # SourceFile; file.entry is the entry as of the opening
                    for offset, length in file.data_ranges():
                        file.read_into(offset, buffer)
                    file.has_changed()                   # then the caller begins again with this file
        reader.skipped.sentences()                       # what was left out, for the report's warnings

Below it, `tree_walk` finds objects as rows (`rows`): column by column, so that ``walk_since(before)`` can leave out
what is as it was, many at a time. After ``reader.begin_walk()`` another process does that (`walker`, `walking`).

A restore of a tree:

    with TreeWriter(root, assess_target(root)) as writer:    # tree_writer, fidelity
        for entry in manifest_entries:                       # in the order of walk()
            file = writer.put(entry)                         # TargetFile for a FILE, None for all else
            if file is not None:
                for offset, length in holes(entry.extents, 0, entry.size):     # ranges
                    file.clear(offset, length)
                for extent in entry.extents:                 # skip what is equal: read_into, hash, compare
                    file.write(extent.offset, data)
                file.finish()                                # size, owner, mode, attributes, mtime; closes
        writer.finish()                                      # extra files, directories' attributes, sync
        writer.losses.sentences()

``put`` is called by one thread; a TargetFile belongs to the caller and may be filled and finished by another thread
and later than the next ``put``, but before ``writer.finish()``. The same holds for SourceFile and ``walk``.

With ``defers=True`` the writer leaves it to the caller when new small files are made: ``put`` returns a NewFile
(`new_file`), which is made when it is first written, or by other processes (``writer.makers``, `makers`, `making`).
What depends on such files waits in ``writer.late``, for the caller to do when the files put before are finished.

A device, or a file that holds the image of one:

    with BlockSource(path) as source: ...                # block
    with BlockTarget(path, size) as target: ...

`fidelity.assess_source(root)` and `fidelity.assess_target(root)` say before the work begins what cannot be kept:
``.warnings()`` is a list of short sentences. `ranges.is_zero(view)` is the fast test for zeros.

Paths are never given to the kernel as a whole: `directories` opens part after part, never through a symbolic link, and
so neither leads a link out of the volume nor is a path too long. What belongs to a tree and what does not (SELinux
labels, inode flags of chattr) is said in `attributes`.

Everything raises SourceError or TargetError (permanent) and SourceChanging (transient), never OSError. Order of
entries is that of `datapath.entries.order_key`, the root (empty path) first. ``put`` takes a file once: where its
extents come in several parts, the TargetFile of the first part serves all of them.
"""
