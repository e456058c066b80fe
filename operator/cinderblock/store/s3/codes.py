"""The meaning of error codes of S3 servers: the kind of each code, and what a person can do about a kind.

Codes: S3 API reference, "List of error codes", for the requests that `store` and `multipart` make. Comments name
other servers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum, auto
from types import MappingProxyType
from typing import Final, NamedTuple

from cinderblock.errors import (
    AccessDenied,
    CinderblockError,
    ClockSkewed,
    Conflict,
    ContainerNotFound,
    CredentialsExpired,
    CredentialsRejected,
    InvalidInput,
    ObjectArchived,
    ObjectLocked,
    ObjectNotFound,
    PermanentError,
    StoreThrottled,
    StoreUnreachable,
    TooLarge,
    WrongRegion,
)
from cinderblock.reasons import Reason


class Kind(Enum):
    """The meaning of a code."""

    ABSENT_CONTAINER = auto()
    ABSENT_OBJECT = auto()
    ARCHIVED = auto()
    BAD_KMS_KEY = auto()
    BAD_NAME = auto()
    BAD_SIGNATURE = auto()
    BAD_TOKEN = auto()
    DENIED = auto()
    EXPIRED = auto()
    FULL = auto()
    IN_PROXY = auto()
    LOCKED = auto()
    NO_CHECKSUM = auto()
    NO_ACCOUNT = auto()
    NOT_DONE = auto()
    OVERLOADED = auto()
    PROXY_LOGIN = auto()
    SKEWED = auto()
    TAKEN = auto()
    TOO_LARGE = auto()
    TOO_MANY_CONTAINERS = auto()
    UNAVAILABLE = auto()
    UNKNOWN = auto()
    UNKNOWN_ACCESS_KEY = auto()
    UNSUPPORTED = auto()
    UNSUPPORTED_SETTING = auto()
    WRONG_REGION = auto()


class Meaning(NamedTuple):
    """A kind as an error.

    Attributes:
        error: class of the error.
        problem: begins its message; a format of the address of the store.
        remedy: what to do.
        reason: of the error, if it is not that of its class.
    """

    error: type[CinderblockError]
    problem: str
    remedy: str
    reason: Reason | None = None


_NO_PERMISSION: Final = "Allow list, get, put and delete on the container"

MEANINGS: Final[Mapping[Kind, Meaning]] = MappingProxyType(
    {
        Kind.ABSENT_CONTAINER: Meaning(
            ContainerNotFound,
            "Cannot use {}: the container does not exist",
            "Create it, or correct the name",
        ),
        Kind.ABSENT_OBJECT: Meaning(
            ObjectNotFound, "Cannot read from {}: the object does not exist", "Find out who removed it"
        ),
        Kind.ARCHIVED: Meaning(
            ObjectArchived,
            "Cannot read from {}: the object is in an archive",
            "Retrieve it, and correct the lifecycle rule that moved it",
        ),
        Kind.BAD_KMS_KEY: Meaning(
            PermanentError,
            "Cannot use {}: the server cannot use the KMS key",
            "Check the key id, its state, and its policy",
            Reason.STORE_REFUSES,
        ),
        Kind.BAD_NAME: Meaning(
            InvalidInput, "Cannot use {}: the server rejects a name", "Correct container, prefix and addressing"
        ),
        Kind.BAD_SIGNATURE: Meaning(
            CredentialsRejected,
            "Cannot access {}: the secret key does not match the access key",
            "Check AWS_SECRET_ACCESS_KEY and the region",
        ),
        Kind.BAD_TOKEN: Meaning(
            CredentialsRejected, "Cannot access {}: the session token is invalid", "Check AWS_SESSION_TOKEN"
        ),
        Kind.DENIED: Meaning(AccessDenied, "Cannot access {}: the credentials lack a permission", _NO_PERMISSION),
        Kind.EXPIRED: Meaning(
            CredentialsExpired, "Cannot access {}: the session token has expired", "Get new credentials"
        ),
        Kind.FULL: Meaning(
            PermanentError,
            "Cannot write to {}: no space is left",
            "Raise its quota or free space",
            Reason.STORE_FULL,
        ),
        Kind.IN_PROXY: Meaning(
            PermanentError,
            "Cannot use {}: a proxy in between changes requests",
            "Let it pass Content-Length and bodies unchanged, or bypass it",
            Reason.STORE_REFUSES,
        ),
        Kind.LOCKED: Meaning(
            ObjectLocked,
            "Cannot delete or replace an object in {}: the store keeps it locked",
            "Wait until its retention ends, or lift its legal hold",
        ),
        Kind.NO_CHECKSUM: Meaning(
            PermanentError,
            "Cannot write to {}: the server wants another checksum of uploads",
            "Remove the default retention of the container, or report this server",
            Reason.STORE_REFUSES,
        ),
        Kind.NO_ACCOUNT: Meaning(
            AccessDenied,
            "Cannot access {}: the account may not use the service",
            "Check the state of the account and its payments",
        ),
        Kind.NOT_DONE: Meaning(
            StoreUnreachable, "Cannot use {} now: the request did not arrive whole", "The request is repeated"
        ),
        Kind.OVERLOADED: Meaning(
            StoreThrottled, "Cannot use {} now: the server is overloaded", "It asks for fewer requests"
        ),
        Kind.PROXY_LOGIN: Meaning(
            PermanentError,
            "Cannot use {}: a proxy in between asks for credentials",
            "Let it pass requests without them, name them in HTTPS_PROXY, or bypass it by NO_PROXY",
            Reason.STORE_REFUSES,
        ),
        Kind.SKEWED: Meaning(
            ClockSkewed,
            "Cannot access {}: the clock of this machine differs from the server's clock",
            "Correct the clocks",
        ),
        Kind.TAKEN: Meaning(Conflict, "Cannot create {}: the name belongs to another account", "Choose another name"),
        Kind.TOO_LARGE: Meaning(
            TooLarge,
            "Cannot send a request to {}: it is too large for the server or a proxy",
            "Allow 100 MB for a body and 16 KiB for headers",
        ),
        Kind.TOO_MANY_CONTAINERS: Meaning(
            PermanentError,
            "Cannot create {}: the account has too many containers",
            "Name an existing one, or raise the limit",
            Reason.STORE_REFUSES,
        ),
        Kind.UNAVAILABLE: Meaning(
            StoreUnreachable, "Cannot use {} now: the server is unavailable", "The request is repeated"
        ),
        Kind.UNKNOWN: Meaning(
            PermanentError,
            "Cannot use {}: the server rejects the request",
            "Search its documentation for the code",
            Reason.STORE_REFUSES,
        ),
        Kind.UNKNOWN_ACCESS_KEY: Meaning(
            CredentialsRejected, "Cannot access {}: the server does not know the access key", "Check AWS_ACCESS_KEY_ID"
        ),
        Kind.UNSUPPORTED: Meaning(
            PermanentError,
            "Cannot use {}: the server does not support this request",
            "Check that it is a complete S3 server, and its settings for this container",
            Reason.STORE_REFUSES,
        ),
        Kind.UNSUPPORTED_SETTING: Meaning(
            PermanentError,
            "Cannot use {}: the server does not support a setting of the store",
            "Correct its storage class and its encryption",
            Reason.STORE_REFUSES,
        ),
        Kind.WRONG_REGION: Meaning(WrongRegion, "Cannot use {0}: it is not in region {0.region}", "Correct the region"),
    }
)

_CODES: Final[Mapping[Kind, str]] = {
    Kind.ABSENT_CONTAINER: "NoSuchBucket NoSuchAccessPoint NoSuchMultiRegionAccessPoint InvalidAccessPoint",
    Kind.ABSENT_OBJECT: "NoSuchKey NoSuchVersion",
    Kind.ARCHIVED: "InvalidObjectState",
    Kind.BAD_KMS_KEY: (
        "KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException KMS.NotFoundException"
        " KMS.InvalidStateException KMS.AccessDeniedException KMSNotConfigured"
    ),
    Kind.BAD_NAME: (
        "InvalidBucketName InvalidURI KeyTooLongError InvalidAccessPointAliasError InvalidAddressingHeader"
        " InvalidHostHeader IncorrectEndpoint XMinioInvalidObjectName InvalidBucketOwnerAWSAccountID"
    ),
    Kind.BAD_SIGNATURE: (
        "SignatureDoesNotMatch InvalidSignature UnsupportedSignature AuthorizationQueryParametersError InvalidSecurity"
        " CredentialsNotSupported MissingSecurityHeader MissingAuthenticationToken"
    ),
    Kind.BAD_TOKEN: "InvalidToken TokenCodeInvalidError InvalidSessionException InvalidTokenId",
    Kind.DENIED: (
        "AccessDenied UnauthorizedAccessError UnauthorizedAccess InvalidPayer UnexpectedIPError AllAccessDisabled"
    ),
    Kind.EXPIRED: "ExpiredToken TokenRefreshRequired ExpiredTokenException",
    # QuotaExceeded of Ceph and SeaweedFS, the others of MinIO.
    Kind.FULL: "QuotaExceeded InsufficientStorage XMinioStorageFull XMinioAdminBucketQuotaExceeded",
    Kind.IN_PROXY: "MissingContentLength MissingRequestBodyError RequestIsNotMultiPartContent",
    # Google Cloud Storage, Cloudflare R2 and Dell ECS refuse even a deletion that names no version.
    Kind.LOCKED: (
        "ObjectLocked ObjectLockRetained RetentionPolicyNotMet ObjectUnderActiveHold ObjectLockedByBucketPolicy"
        " ObjectUnderRetention"
    ),
    Kind.NO_ACCOUNT: "AccountProblem NotSignedUp",
    # The body was damaged in transit, or the connection broke.
    Kind.NOT_DONE: (
        "BadDigest IncompleteBody XAmzContentSHA256Mismatch XAmzContentChecksumMismatch ConnectionClosed"
        " ConnectionClosedByRequester RequestTimeout ResponseInterrupted UnexpectedContent InvalidPart"
    ),
    Kind.OVERLOADED: (
        "SlowDown SlowDownRead SlowDownWrite Throttling ThrottlingException ThrottledException RequestThrottled"
        " RequestLimitExceeded TooManyRequests BandwidthLimitExceeded Busy"
    ),
    Kind.SKEWED: "RequestTimeTooSkewed RequestExpired RequestNotValidYet RequestInTheFuture",
    Kind.TAKEN: "BucketAlreadyExists BucketNotEmpty BucketAlreadyOwnedByYou AccessPointAlreadyOwnedByYou",
    Kind.TOO_LARGE: (
        "EntityTooLarge MaxMessageLengthExceeded RequestHeaderSectionTooLarge MetadataTooLarge InlineDataTooLarge"
    ),
    Kind.TOO_MANY_CONTAINERS: "TooManyBuckets",
    # A new container spreads (TemporaryRedirect), a lifecycle rule has aborted an upload (NoSuchUpload), and the like.
    Kind.UNAVAILABLE: (
        "InternalError InternalServerError ServiceUnavailable OperationAborted ConditionalRequestConflict"
        " TemporaryRedirect NoSuchUpload RequestTimedOut XMinioServerNotInitialized XMinioReadQuorum XMinioWriteQuorum"
        " InvalidBucketState ClientTokenConflict RestoreAlreadyInProgress"
    ),
    Kind.UNKNOWN_ACCESS_KEY: "InvalidAccessKeyId XAdminUserNotFound",  # the latter of versitygw 1.8
    Kind.UNSUPPORTED: (
        "NotImplemented MethodNotAllowed InvalidHttpMethod UnsupportedArgument InvalidArgument InvalidRequest"
        " InvalidDigest MalformedXML MalformedACLError InvalidPartOrder EntityTooSmall InvalidRange PreconditionFailed"
        " InvalidBucketAclWithObjectOwnership AccessControlListNotSupported NotModified UserKeyMustBeSpecified"
    ),
    Kind.UNSUPPORTED_SETTING: "InvalidStorageClass InvalidEncryptionAlgorithmError XMinioKMSNotConfigured",
    Kind.WRONG_REGION: (
        "AuthorizationHeaderMalformed IllegalLocationConstraintException InvalidLocationConstraint InvalidRegion"
        " PermanentRedirect Redirect EndpointNotFound"
    ),
}

KIND_BY_CODE: Final[Mapping[str, Kind]] = MappingProxyType(
    {code: kind for kind, codes in _CODES.items() for code in codes.split()}
)

_KIND_BY_STATUS: Final[Mapping[int, Kind]] = {
    402: Kind.NO_ACCOUNT,
    407: Kind.PROXY_LOGIN,
    408: Kind.UNAVAILABLE,
    411: Kind.IN_PROXY,
    413: Kind.TOO_LARGE,
    423: Kind.LOCKED,
    425: Kind.UNAVAILABLE,
    429: Kind.OVERLOADED,
    431: Kind.TOO_LARGE,
    501: Kind.UNSUPPORTED,
    507: Kind.FULL,
}
"""Kinds of statuses that a server or anything in front of it may send, with any body or none. They say more than a code
that nobody knows."""
_LOGIN_PAGE: Final = 511
"""Network Authentication Required (RFC 6585, section 6): a login page, and no S3 server."""

_LOCKED_TEXT: Final = re.compile(
    r"(protected|forbidden|held|denied) by object.?lock|\bWORM\b|legal hold|object is locked|retention policy",
    re.IGNORECASE,
)
"""Words of AWS and versitygw, MinIO, Ceph, and Google about an object that may not be deleted or replaced yet. AWS
gives the code AccessDenied, MinIO InvalidRequest."""
_CHECKSUM_TEXT: Final = re.compile(r"Content-MD5|x-amz-checksum|x-amz-sdk-checksum", re.IGNORECASE)


def classify(code: str, status: int, message: str) -> Kind | None:
    """Return the kind of an answer. Return None if an S3 server has not sent it: it has no code.

    Args:
        code: of the answer; empty or the status, if the answer has none.
        status: of HTTP; 0 for an answer about one key of several.
        message: of the answer.
    """
    has_code = code not in ("", str(status))
    if has_code and _LOCKED_TEXT.search(message):
        return Kind.LOCKED
    if code == "InvalidRequest" and _CHECKSUM_TEXT.search(message):
        return Kind.NO_CHECKSUM
    kind = KIND_BY_CODE.get(code) or _kind_of_status(status)
    if kind is None and has_code:
        kind = Kind.DENIED if status in {401, 403} else Kind.UNKNOWN
    return kind


def _kind_of_status(status: int) -> Kind | None:
    """Return what a status means by itself. Proxies and CDNs have statuses of their own from 520 on: try again."""
    if status in _KIND_BY_STATUS or status == _LOGIN_PAGE or not 500 <= status < 600:
        return _KIND_BY_STATUS.get(status)
    return Kind.UNAVAILABLE
