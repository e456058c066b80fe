"""Sealing: how frames are encrypted and bound to their place.

Every object (a pack, a manifest) has a key of its own, derived by HKDF-SHA256 (RFC 5869) from the backup's data key
and the object's full identity: format version, kind of object, volume, backup, and a name that holds 128 fresh random
bits (the attempt of a pack, the salt of a manifest). Within an object, frames are numbered, and the number is the
nonce of AES-256-GCM (NIST SP 800-38D 8.2.1, deterministic construction). So a pair of key and nonce could repeat only
if two runs of a mover drew the same 128 bits for the same backup, or if one run sealed two packs under one number; a
pack is sealed once, in memory, and an upload that is repeated sends the same bytes. A run that resumes an earlier one
draws an attempt of its own and never adds to the packs of another. Random 96-bit nonces under one key would instead
put a bound on the chunks of a backup, and would have to be trusted in every one of them.

The associated data of a frame is the same identity and the number, so a frame that is moved to another place, another
pack, another backup or another format version does not open.
"""

from __future__ import annotations

import contextlib
import struct
from enum import IntEnum

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cinderblock.errors import IntegrityError
from cinderblock.format.range_reader import Buffer

FORMAT_VERSION = 1
"""The version that this program writes, and the only one that it reads."""
KEY_BYTES = 32
TAG_BYTES = 16


class Suite(IntEnum):
    """How frames are sealed. The numbers are part of the format."""

    NONE = 0
    AES_256_GCM = 1


class FrameKind(IntEnum):
    """What a frame is within its object. The numbers are part of the format."""

    CONTENT = 0
    INDEX = 1
    KEY = 2


def text_field(text: str) -> bytes:
    """A string as it stands in headers and identities: its length in bytes as u16, then UTF-8."""
    data = text.encode()
    return struct.pack("<H", len(data)) + data


def identity(kind: str, *names: str) -> bytes:
    """The identity of an object: format version, kind, and names from the widest to the narrowest."""
    return b"cinderblock" + struct.pack("<H", FORMAT_VERSION) + b"".join(map(text_field, (kind, *names)))


def derive_key(secret: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 without salt: 32 bytes that belong to ``info``."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


class Sealer:
    """Seals and opens the frames of one object; safe for several threads.

    Without a key a frame carries, where the tag would be, a checksum of the same length over the same data. It tells
    damage and misplaced frames, not forgery.

    Args:
        object_key: 32 bytes that belong to this object alone; None: frames are stored unsealed.
        object_identity: `identity` of the object.
        label: what the object is called in messages, normally its key in the store.
    """

    __slots__ = ("_cipher", "_identity", "label", "suite")

    def __init__(self, object_key: bytes | None, object_identity: bytes, label: str) -> None:
        self._cipher = AESGCM(object_key) if object_key is not None else None
        self._identity = object_identity
        self.label = label
        self.suite = Suite.NONE if object_key is None else Suite.AES_256_GCM

    def seal_into(self, slot: FrameKind, number: int, plaintext: Buffer, target: memoryview) -> int:
        """Seal a frame into the beginning of ``target``; returns the number of bytes written there."""
        size = len(plaintext)
        length = size + TAG_BYTES
        place = _associated_data(slot, number)
        if self._cipher is None:
            target[:size] = plaintext
            target[size:length] = self._checksum(place, plaintext)
        else:
            self._cipher.encrypt_into(place, plaintext, self._identity + place, target[:length])
        return length

    def seal(self, slot: FrameKind, number: int, plaintext: Buffer) -> bytes:
        """Seal a frame."""
        frame = bytearray(len(plaintext) + TAG_BYTES)
        self.seal_into(slot, number, plaintext, memoryview(frame))
        return bytes(frame)

    def open(self, slot: FrameKind, number: int, frame: Buffer, into: bytearray | None = None) -> Buffer:
        """The plaintext of a frame. Raises IntegrityError naming the object.

        Args:
            slot, number: as which frame it is to open.
            frame: as it was stored.
            into: where the plaintext may be put, at least as long as the frame; it need not be, so what counts is what
                is returned. New memory for each chunk costs 256 page faults per MiB.
        """
        if len(frame) < TAG_BYTES:
            raise IntegrityError(f"{self.label}: frame {number} is cut short")
        place = _associated_data(slot, number)
        if self._cipher is None:
            view = memoryview(frame)
            plaintext = view[:-TAG_BYTES]
            if self._checksum(place, plaintext) == view[-TAG_BYTES:]:
                return plaintext
        else:
            with contextlib.suppress(InvalidTag):
                if into is None:
                    return self._cipher.decrypt(place, frame, self._identity + place)
                target = memoryview(into)[: len(frame) - TAG_BYTES]
                self._cipher.decrypt_into(place, frame, self._identity + place, target)
                return target
        raise IntegrityError(f"{self.label}: frame {number} does not open: it was changed, or it belongs elsewhere")

    def _checksum(self, place: bytes, plaintext: Buffer) -> bytes:
        return blake3(self._identity + place).update(plaintext).digest(TAG_BYTES)


def _associated_data(slot: FrameKind, number: int) -> bytes:
    """Slot and number as the 96-bit nonce."""
    return struct.pack("<IQ", slot, number)
