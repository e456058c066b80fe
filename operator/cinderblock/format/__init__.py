"""The stored format: volumes become chunks, packs and a manifest, and vice versa.

docs/reference/format.md specifies it. Nothing here uses a network or a clock.

Glossary:

chunk         a piece of plaintext of at most 8 MiB, identified by its BLAKE3 digest
solid chunk   a chunk that holds several small files
extent        a run of bytes of a file that lies in one chunk
frame         a chunk, section or index in its stored form: encoded, then sealed
pack          one object of many frames, with a sealed index at its end
manifest      the one object that makes a backup exist; it locates every byte of the volume
section       about 1 MiB of a manifest: entries and their extents
attempt       one run of a mover, named by 128 random bits
origin        the backup and the attempt that made a pack
data key      the random key of one backup
key ring      the keys of a store's encryption Secret, which wrap data keys
parent        the backup on which an incremental backup is based

Write a backup:

    packs, attempt = PackTable(), new_attempt()
    number = packs.add(Origin(backup_id, attempt), 0, 0)
    sealer = pack_sealer(data_key, volume_id, backup_id, pack_name(attempt, 0), "the pack")
    builder = PackBuilder(bytearray(buffer_bytes(chunk_bytes)), sealer)
    chunk = builder.add(number, digest_of(data), len(data), Encoding.RAW, data)
    body = builder.finish()                               # store it, and call packs.set_size(number, len(body))
    header = new_header(volume_id, backup_id, None, data_key, keys)
    writer = ManifestWriter(header, header.sealer(data_key, "the manifest"), packs)
    writer.add(entry)                                     # in order of `entries.order_key`
    manifest = writer.finish(description, chunk_bytes, {})

Read it:

    reader = ManifestReader(read, keys, expected, "the manifest")
    for entry in reader.entries():
        for extent in entry.extents:                      # bytes outside all extents are zeros
            frame = ...                                   # extent.chunk.stored bytes at extent.chunk.offset of the pack
            encoded = open_chunk(sealer, extent.chunk, frame)
            data = decode(extent.chunk.encoding, encoded, extent.chunk.size, "the pack")
"""
