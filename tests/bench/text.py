"""Bytes that resemble user data: text that compresses like source code, and noise that does not compress."""

from __future__ import annotations

import random
from typing import Final

_WORDS: Final = 4096
_CORPUS_BYTES: Final = 16 << 20
_LETTERS: Final = b"etaoinsrhldcumfpgwybvkxjqz_ETAOINSRHLDCUMFPGWYBVKXJQZ0123456789"
_ENDS: Final = (b" ", b" ", b" ", b" ", b"(", b")", b".", b", ", b" = ", b";\n    ", b"\n", b":\n        ")


class Text:
    """An endless text. The same seed gives the same text.

    A corpus of words in Zipf's distribution is written once. Every piece is cut from it at a random place, with its
    letters permuted. Pieces compress like the corpus (zstd level 1: to about 0.37), but have nothing in common that a
    program could deduplicate.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        words = [self._word() for _ in range(_WORDS)]
        weights = [1 / (rank + 3) for rank in range(_WORDS)]
        count = _CORPUS_BYTES // 6
        chosen = self._random.choices(words, weights, k=count)
        ends = self._random.choices(_ENDS, k=count)
        self._corpus = b"".join([part for pair in zip(chosen, ends, strict=True) for part in pair])

    def piece(self, length: int) -> bytes:
        """Return the next ``length`` bytes of text."""
        parts = []
        while length > 0:
            count = min(length, 1 << 20)
            start = self._random.randrange(len(self._corpus) - count)
            parts.append(self._corpus[start : start + count].translate(self._exchange()))
            length -= count
        return b"".join(parts)

    def noise(self, length: int) -> bytes:
        """Return the next ``length`` incompressible bytes."""
        return b"".join([self._random.randbytes(min(1 << 20, length - done)) for done in range(0, length, 1 << 20)])

    def _word(self) -> bytes:
        return bytes(self._random.choices(_LETTERS[:26], k=self._random.randint(2, 11)))

    def _exchange(self) -> bytes:
        letters = bytearray(_LETTERS)
        self._random.shuffle(letters)
        return bytes.maketrans(_LETTERS, bytes(letters))
