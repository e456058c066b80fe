"""A volume inside a pod: a block device or a file tree, read by backups and written by restores.

Glossary:

source        the volume that a backup reads
target        the volume that a restore writes
content       the bytes of one file or of the device, behind one interface (`content`)
data range    a run of bytes that may contain something other than zeros
hole          a run that reads as zeros and takes no space
rows          objects found by a walk, as columns; many are compared with the parent backup at once (`tree.rows`)
support       the metadata that this process and the target can keep (`capabilities`, `metadata_support`)
loss          metadata that could not be kept
omission      an object that is left out of a backup because it cannot be read (`omissions`)
skipped       an object that belongs to no backup, for example a socket (`tree.walk`)

Back up a tree (entries come in the order of `format.entries.order_key`, the root with its empty path first):

    with TreeReader(root) as reader:
        for entry in reader.walk():                          # without extents
            if entry.kind is EntryKind.FILE:
                with reader.open_file(entry) as file:        # file.entry is the entry at the time of opening
                    for offset, length in file.data_ranges():
                        file.read_into(offset, buffer)
                    file.has_changed()                       # if so, read the file again

Restore a tree:

    with TreeWriter(root, assess_target(root)) as writer:
        for entry in entries:                                # in the order of walk()
            file = writer.put(entry)                         # a TargetFile for a FILE, otherwise None
            if file is not None:
                for offset, length in holes(entry.extents, 0, entry.size):
                    file.clear(offset, length)
                for extent in entry.extents:
                    file.write(extent.offset, data)
                file.finish()                                # size, owner, mode, attributes, mtime; closes the file
        writer.finish()                                      # removes extra files, sets directories' metadata, syncs

One thread calls ``walk`` and ``put``. Any thread may fill and finish a file, at any time before ``writer.finish()``.

Paths are never passed to the kernel as a whole. `tree.dirfd` opens part after part and follows no symbolic link. So no
link can lead out of the volume, and no path is too long. All functions raise SourceError and TargetError (permanent) or
SourceChanging (transient) unless their docstring names OSError.
"""
