"""Every error that Cinderblock raises on purpose, in one tree.

Two axes. *Permanent or transient*: whether doing the same again may help; it decides between ending an operation and
retrying it. *Reason*: a stable CamelCase word that appears in conditions, Events, reports and exit codes, so that
people and tools can match on it. The message is for a person: what is wrong, where, and what to do. It never holds a
secret; what comes from a client library is rewritten at the fence of its room.

    CinderblockError
    ├── PermanentError            trying again cannot help
    │   ├── InvalidInput          the request itself is wrong
    │   ├── NotFound              a thing that was named does not exist
    │   ├── Conflict              a thing exists and is not ours, or changed under us
    │   │   └── AlreadyExists     an object of that name is there already
    │   ├── AccessDenied          credentials are wrong or not sufficient
    │   ├── KeyUnavailable        the encryption key that the data needs is not there
    │   ├── IntegrityError        stored bytes are not what was written
    │   │   ├── ForeignManifest   a manifest is that of another backup
    │   │   ├── SealBroken        a manifest must be encrypted and is not
    │   │   ├── ManifestReplaced  a manifest is not the one that was recorded
    │   │   └── SealedTooLate     a manifest is newer than its key may seal
    │   ├── UnsupportedFormat     an object of an unknown format version
    │   ├── TargetError           the volume refuses: no space, read-only, gone
    │   └── SourceError           the volume cannot be read
    └── TransientError            trying again may help
        ├── StoreUnreachable      the S3 endpoint does not answer, answers 5xx, throttles, or something else answers
        ├── KubeUnavailable       the API server does not answer, or answers 5xx, or throttles
        ├── NotLeading            another process acts, or may act: this one must not
        └── SourceChanging        files change faster than they can be read
"""

from __future__ import annotations


class CinderblockError(Exception):
    """Base of the tree.

    Attributes:
        reason: stable CamelCase word; the class's name unless the raiser gives a finer one.
        message: one sentence for a person, free of secrets.
    """

    permanent = True

    def __init__(self, message: str, *, reason: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or type(self).__name__


class PermanentError(CinderblockError):
    """Trying again cannot help: the operation ends in error."""


class TransientError(CinderblockError):
    """Trying again may help: the operation is repeated, within bounds."""

    permanent = False


class InvalidInput(PermanentError):
    """The request itself is wrong."""


class NotFound(PermanentError):
    """A thing that was named does not exist."""


class Conflict(PermanentError):
    """A thing exists and is not ours, or it changed under us."""


class AlreadyExists(Conflict):
    """An object of that name is there already: whether it is ours, its owner's UID says."""


class AccessDenied(PermanentError):
    """Credentials are wrong or not sufficient."""


class KeyUnavailable(PermanentError):
    """The encryption key that the data needs is not there."""


class IntegrityError(PermanentError):
    """Stored bytes are not what was written. The message names the object."""


class ForeignManifest(IntegrityError):
    """A manifest belongs to another backup than its reader expects."""


class SealBroken(IntegrityError):
    """A manifest must be encrypted and is not: somebody without a key may have put it there."""


class ManifestReplaced(IntegrityError):
    """A manifest is not the one that was recorded when the backup became available."""


class SealedTooLate(IntegrityError):
    """A manifest is newer than the read-only mark of the key that sealed it."""


class UnsupportedFormat(PermanentError):
    """An object has a format version that this program does not know."""


class TargetError(PermanentError):
    """The volume to be written refuses: no space, read-only, too small, gone."""


class SourceError(PermanentError):
    """The volume to be read cannot be read.

    Attributes:
        concerns_one_object: whether the error concerns a single object, which a backup may leave out.
    """

    concerns_one_object: bool = False


class StoreUnreachable(TransientError):
    """The S3 endpoint does not answer, answers 5xx, or throttles; or something else answers in its place.

    Attributes:
        retry_after: seconds that the endpoint asks to wait before the next request, if it says so.
        is_of_another: whether the answer was not the S3 server's: a proxy's, say, or a load balancer's.
    """

    retry_after: float | None = None
    is_of_another: bool = False


class KubeUnavailable(TransientError):
    """The API server does not answer, answers 5xx, or throttles."""


class NotLeading(TransientError):
    """Another process acts, or may act: this one must not."""


class SourceChanging(TransientError):
    """Files change faster than they can be read."""


FAIL_REASON_LIMIT = 255
"""Characters of ``failReason``: Cinder's column is 255 long and cut, not refused (``cinder.objects.backup``)."""


def fail_reason(text: str) -> str:
    """Cut ``text`` to what fits in ``failReason``: one line, at most 255 characters."""
    line = " ".join(text.split())
    return line if len(line) <= FAIL_REASON_LIMIT else line[: FAIL_REASON_LIMIT - 1] + "…"
