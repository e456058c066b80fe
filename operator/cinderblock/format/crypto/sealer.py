"""Sealing: frames are encrypted and bound to their place.

Every object (a pack, a manifest) has a key of its own. HKDF-SHA256 (RFC 5869) derives it from the backup's data key and
the object's full identity: format version, kind of object, volume, backup, and a name with 128 fresh random bits. These
bits are the attempt of a pack or the salt of a manifest.

Within an object, frames are numbered. The number is the nonce of AES-256-GCM (NIST SP 800-38D 8.2.1, deterministic
construction). A pair of key and nonce could repeat only in two cases: two runs of a mover draw the same 128 bits for
the same backup, or one run seals two packs under one number. A pack is sealed once, in memory, and a repeated upload
sends the same bytes. A resumed run draws an attempt of its own and never adds to the packs of another run. Random
96-bit nonces under one key would limit the number of chunks of a backup, and every single nonce would have to be
trusted.

The associated data of a frame is the same identity and the number. A frame that is moved to another place, pack, backup
or format version does not open.
"""

from __future__ import annotations

import contextlib
import struct
from enum import IntEnum

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cinderblock.errors import IntegrityError
from cinderblock.format.range_reader import Buffer

FORMAT_VERSION = 1
"""The version that this program writes, and the only one that it can read."""
KEY_BYTES = 32
TAG_BYTES = 16


class Suite(IntEnum):
    """Cipher suite of frames. The numbers are part of the format."""

    NONE = 0
    AES_256_GCM = 1


class FrameKind(IntEnum):
    """Role of a frame within its object. The numbers are part of the format."""

    CONTENT = 0
    INDEX = 1
    KEY = 2


def text_field(text: str) -> bytes:
    """Encode a string for headers and identities: its length in bytes as u16, then UTF-8."""
    data = text.encode()
    return struct.pack("<H", len(data)) + data


def identity(kind: str, *names: str) -> bytes:
    """Return the identity of an object: format version, kind, and names from the widest to the narrowest."""
    return b"cinderblock" + struct.pack("<H", FORMAT_VERSION) + b"".join(map(text_field, (kind, *names)))


def derive_key(secret: bytes, info: bytes) -> bytes:
    """Derive 32 bytes for ``info`` by HKDF-SHA256 without salt."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(secret)


class Sealer:
    """Seals and opens the frames of one object. Several threads may use it.

    Without a key, a checksum of the same length over the same data takes the place of the tag. It detects damaged and
    misplaced frames, but not forged ones.

    Args:
        object_key: 32 bytes, used for this object only; None leaves frames unsealed.
        object_identity: `identity` of the object.
        label: name of the object in messages, normally its key in the store.
    """

    __slots__ = ("_cipher", "_identity", "_key", "label", "suite")

    def __init__(self, object_key: bytes | None, object_identity: bytes, label: str) -> None:
        self._key = object_key
        self._cipher = AESGCM(object_key) if object_key is not None else None
        self._identity = object_identity
        self.label = label
        self.suite = Suite.NONE if object_key is None else Suite.AES_256_GCM

    def seal_into(self, kind: FrameKind, number: int, plaintext: Buffer, target: memoryview) -> int:
        """Seal a frame into the beginning of ``target``, and return the number of bytes written."""
        size = len(plaintext)
        length = size + TAG_BYTES
        place = _place(kind, number)
        if self._cipher is None:
            target[:size] = plaintext
            target[size:length] = self._checksum(place, plaintext)
        else:
            self._cipher.encrypt_into(place, plaintext, self._identity + place, target[:length])
        return length

    def seal(self, kind: FrameKind, number: int, plaintext: Buffer) -> bytes:
        """Seal a frame."""
        frame = bytearray(len(plaintext) + TAG_BYTES)
        self.seal_into(kind, number, plaintext, memoryview(frame))
        return bytes(frame)

    def open(self, kind: FrameKind, number: int, frame: Buffer, into: bytearray | None = None) -> Buffer:
        """Open a frame, and return its plaintext. Raises IntegrityError naming the object.

        Args:
            kind, number: role and number that the frame must have.
            frame: the frame as it was stored.
            into: memory for the plaintext, at least as long as the frame. It may stay unused: use only the returned
                buffer. New memory for each chunk costs 256 page faults per MiB.
        """
        if len(frame) < TAG_BYTES:
            raise IntegrityError(f"{self.label}: frame {number} is cut short")
        place = _place(kind, number)
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
        raise _does_not_open(self.label, number)

    def opener(self, kind: FrameKind, number: int) -> FrameOpener:
        """Return what opens a frame piece by piece."""
        place = _place(kind, number)
        data = self._identity + place
        return FrameOpener(self.label, number, data, None if self._key is None else (self._key, place))

    def _checksum(self, place: bytes, plaintext: Buffer) -> bytes:
        return blake3(self._identity + place).update(plaintext).digest(TAG_BYTES)


class FrameOpener:
    """Opens one frame as a stream. Nothing of it may be trusted before `finish` has returned.

    Args:
        label: name of the object in messages.
        number: of the frame.
        data: associated data of the frame.
        cipher: key and nonce; None: the frame is not sealed.
    """

    def __init__(self, label: str, number: int, data: bytes, cipher: tuple[bytes, bytes] | None) -> None:
        self._label = label
        self._number = number
        self._hash = blake3(data) if cipher is None else None
        self._decryptor = None
        if cipher is not None:
            key, nonce = cipher
            self._decryptor = Cipher(AES(key), GCM(nonce)).decryptor()
            self._decryptor.authenticate_additional_data(data)

    def update(self, piece: bytes) -> bytes:
        """Return the plaintext of the next piece."""
        if self._hash is not None:
            self._hash.update(piece)
            return piece
        assert self._decryptor is not None
        return self._decryptor.update(piece)

    def finish(self, tag: bytes) -> None:
        """Check the tag, which is the end of the frame. Raises IntegrityError naming the object."""
        if self._hash is not None:
            if self._hash.digest(TAG_BYTES) == tag:
                return
        elif self._decryptor is not None and len(tag) == TAG_BYTES:
            with contextlib.suppress(InvalidTag):
                self._decryptor.finalize_with_tag(tag)
                return
        raise _does_not_open(self._label, self._number)


def _does_not_open(label: str, number: int) -> IntegrityError:
    return IntegrityError(f"{label}: frame {number} does not open: it was changed, or belongs to another place")


def _place(kind: FrameKind, number: int) -> bytes:
    """Return kind and number as the 96-bit nonce."""
    return struct.pack("<IQ", kind, number)
