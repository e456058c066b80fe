"""Bytes in, bytes out: the stored form of backups (docs/reference/format.md). No network, no clock.

chunk: a piece of plaintext, at most 8 MiB; its identity is its BLAKE3. solid chunk: one that holds several small files.
frame: a chunk, a section or an index as it is stored: encoded, then sealed. pack: one object of many frames with a
sealed index at its end. manifest: the one object that makes a backup exist; it says where every byte of the volume is.
section: about 1 MiB of a manifest. extent: a run of bytes of a file that lies in one chunk. origin: the backup and the
attempt that made a pack. attempt: one run of a mover. data key: the random key of one backup. key ring: the keys of a
store's encryption Secret, which wrap data keys. parent: the backup that an incremental builds on.
"""
