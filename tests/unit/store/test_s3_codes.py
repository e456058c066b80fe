"""Every documented code, and every status of proxies, becomes an error with a reason, a cause and a remedy."""

from __future__ import annotations

import re

import pytest

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
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.answers import from_answer
from cinderblock.store.s3.codes import MEANINGS, Kind

ADDRESS = StoreAddress("https://s3.example", "volumebackups", "eu-west-3")

DOCUMENTED: dict[type[CinderblockError], str] = {
    AccessDenied: """
        AccessDenied AccountProblem AllAccessDisabled InvalidPayer NotSignedUp UnauthorizedAccessError
        UnexpectedIPError
    """,
    CredentialsRejected: """
        AuthorizationQueryParametersError CredentialsNotSupported InvalidAccessKeyId InvalidSecurity
        InvalidSignature InvalidToken MissingAuthenticationToken MissingSecurityHeader SignatureDoesNotMatch
        TokenCodeInvalidError UnsupportedSignature
    """,
    ClockSkewed: "RequestTimeTooSkewed RequestExpired",
    Conflict: "BucketAlreadyExists BucketAlreadyOwnedByYou BucketNotEmpty",
    ContainerNotFound: "NoSuchBucket NoSuchAccessPoint NoSuchMultiRegionAccessPoint InvalidAccessPoint",
    CredentialsExpired: "ExpiredToken TokenRefreshRequired",
    InvalidInput: """
        IncorrectEndpoint InvalidAccessPointAliasError InvalidAddressingHeader InvalidBucketName InvalidHostHeader
        InvalidURI KeyTooLongError""",
    ObjectArchived: "InvalidObjectState",
    ObjectNotFound: "NoSuchKey NoSuchVersion",
    PermanentError: """
        AccessControlListNotSupported EntityTooSmall InvalidArgument InvalidBucketAclWithObjectOwnership InvalidDigest
        InvalidEncryptionAlgorithmError InvalidHttpMethod InvalidPartOrder InvalidRange InvalidRequest
        InvalidStorageClass KMS.DisabledException KMS.InvalidKeyUsageException KMS.KMSInvalidStateException
        KMS.NotFoundException MalformedACLError MalformedXML MethodNotAllowed MissingContentLength
        MissingRequestBodyError NotImplemented NotModified PreconditionFailed TooManyBuckets UnsupportedArgument
        UserKeyMustBeSpecified QuotaExceeded InsufficientStorage XMinioStorageFull""",
    StoreThrottled: """
        SlowDown Throttling ThrottlingException RequestLimitExceeded BandwidthLimitExceeded TooManyRequests""",
    StoreUnreachable: """
        BadDigest ConditionalRequestConflict ConnectionClosedByRequester IncompleteBody InternalError InvalidBucketState
        InvalidPart NoSuchUpload OperationAborted RequestTimeout ResponseInterrupted RestoreAlreadyInProgress
        ServiceUnavailable TemporaryRedirect UnexpectedContent XAmzContentChecksumMismatch XAmzContentSHA256Mismatch""",
    TooLarge: """
        EntityTooLarge InlineDataTooLarge MaxMessageLengthExceeded MetadataTooLarge RequestHeaderSectionTooLarge""",
    WrongRegion: """
        AuthorizationHeaderMalformed IllegalLocationConstraintException InvalidLocationConstraint InvalidRegion
        PermanentRedirect Redirect EndpointNotFound""",
}
"""Codes of the S3 API reference and of other servers, by the error that each must become."""
CASES = [(code, kind) for kind, codes in DOCUMENTED.items() for code in codes.split()]
NOT_FALLBACK = MEANINGS[Kind.UNKNOWN].problem.format(ADDRESS)


def error_of(code: str, status: int = 400, message: str = "It says why.") -> CinderblockError:
    """Return the error for an answer to PutObject."""
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return from_answer(response, ADDRESS, "PutObject")


@pytest.mark.parametrize(("code", "kind"), CASES, ids=[code for code, _ in CASES])
@pytest.mark.parametrize("status", [0, 400, 403, 404, 409])
def test_documented_code_has_an_error_of_its_own(code: str, kind: type[CinderblockError], status: int) -> None:
    error = error_of(code, status)
    assert type(error) is kind
    assert not error.message.startswith(NOT_FALLBACK)
    assert error.message.endswith((f"({code}: It says why).", f"(PutObject: {code}: It says why)."))
    assert ADDRESS.container in error.message
    # A cause, and then a remedy.
    assert re.match(r"Cannot .+: .+\. [A-Z].+ \(", error.message)


@pytest.mark.parametrize(("status", "kind"), [(400, PermanentError), (403, AccessDenied), (401, AccessDenied)])
def test_unknown_code_names_itself_and_the_call(status: int, kind: type[CinderblockError]) -> None:
    error = error_of("SomethingNew", status)
    assert type(error) is kind
    assert "PutObject: SomethingNew" in error.message


@pytest.mark.parametrize("code", ["AccessDenied", "NotImplemented", "EntityTooLarge", "SomethingNew"])
def test_error_of_one_call_names_the_call(code: str) -> None:
    assert f"(PutObject: {code}" in error_of(code, 403).message


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (413, "RequestEntityTooLarge", TooLarge),
        (411, "LengthRequired", PermanentError),
        (423, "Locked", ObjectLocked),
        (429, "Slow", StoreThrottled),
        (507, "Full", PermanentError),
        (407, "ProxyAuthenticationRequired", PermanentError),
    ],
)
def test_meaning_of_a_status_wins_over_an_unknown_code(status: int, code: str, kind: type[CinderblockError]) -> None:
    error = error_of(code, status)
    assert type(error) is kind
    assert not error.message.startswith(NOT_FALLBACK)
    assert code in error.message


def test_known_code_wins_over_a_status() -> None:
    assert type(error_of("AccessDenied", 500)) is AccessDenied
    assert type(error_of("NoSuchKey", 423)) is ObjectNotFound


@pytest.mark.parametrize("status", [500, 502, 503, 504, 408, 425, 505, 508, 520, 526, 599])
@pytest.mark.parametrize("code", ["SomethingNew", "status", ""])
def test_temporary_status_wins_over_an_unknown_code(status: int, code: str) -> None:
    assert type(error_of(str(status) if code == "status" else code, status)) is StoreUnreachable


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (301, StoreUnreachable, "NotS3"),
        (302, StoreUnreachable, "NotS3"),
        (307, StoreUnreachable, "NotS3"),
        (308, StoreUnreachable, "NotS3"),
        (400, StoreUnreachable, "NotS3"),
        (403, StoreUnreachable, "NotS3"),
        (404, StoreUnreachable, "NotS3"),
        (405, StoreUnreachable, "NotS3"),
        (408, StoreUnreachable, "StoreUnreachable"),
        (411, PermanentError, "StoreRefuses"),
        (413, TooLarge, "TooLarge"),
        (429, StoreThrottled, "Throttled"),
        (431, TooLarge, "TooLarge"),
        (500, StoreUnreachable, "StoreUnreachable"),
        (501, PermanentError, "StoreRefuses"),
        (502, StoreUnreachable, "StoreUnreachable"),
        (503, StoreUnreachable, "StoreUnreachable"),
        (504, StoreUnreachable, "StoreUnreachable"),
        (507, PermanentError, "StoreFull"),
        (402, AccessDenied, "AccessDenied"),
        (407, PermanentError, "StoreRefuses"),
        (423, ObjectLocked, "Locked"),
        (505, StoreUnreachable, "StoreUnreachable"),
        (508, StoreUnreachable, "StoreUnreachable"),
        (511, StoreUnreachable, "NotS3"),
        (520, StoreUnreachable, "StoreUnreachable"),
        (522, StoreUnreachable, "StoreUnreachable"),
        (529, StoreUnreachable, "StoreUnreachable"),
        (530, StoreUnreachable, "StoreUnreachable"),
        (598, StoreUnreachable, "StoreUnreachable"),
    ],
)
@pytest.mark.parametrize("code", ["status", ""])
def test_status_of_a_proxy_without_a_code_is_judged_alone(
    status: int, kind: type[CinderblockError], reason: str, code: str
) -> None:
    error = error_of(str(status) if code else "", status, "")
    assert type(error) is kind
    assert error.reason == reason


@pytest.mark.parametrize(
    "message",
    [
        "Content-MD5 OR x-amz-checksum- HTTP header is required for Put Object requests with Object Lock parameters",
        "Missing required header for this request: Content-MD5",
    ],
)
def test_demand_for_a_checksum_is_no_lock(message: str) -> None:
    error = error_of("InvalidRequest", 400, message)
    assert type(error) is PermanentError
    assert "wants another checksum" in error.message


def test_region_and_remedy_fit_into_a_fail_reason() -> None:
    error = error_of("AuthorizationHeaderMalformed", message="long " * 100)
    assert error.message[:255].count("it is not in region eu-west-3. Correct the region") == 1


@pytest.mark.parametrize("kind", Kind)
def test_every_kind_is_reached_by_a_code_a_text_or_a_status(kind: Kind) -> None:
    texts = [("AccessDenied", "protected by object lock"), ("InvalidRequest", "Content-MD5 is missing"), ("X", "")]
    seen = {error_of(code).message.partition(" (")[0] for code, _ in CASES}
    seen |= {error_of(code, message=text).message.partition(" (")[0] for code, text in texts}
    seen.add(error_of("", 407).message.partition(" (")[0])
    meaning = MEANINGS[kind]
    assert f"{meaning.problem.format(ADDRESS)}. {meaning.remedy}" in seen


def test_reasons_tell_what_a_person_must_do() -> None:
    assert error_of("AccessDenied", 403, "held by object lock").reason is Reason.LOCKED
    assert type(error_of("AccessDenied", 403, "held by object lock")) is ObjectLocked
    assert error_of("InvalidObjectState", 403).reason is Reason.ARCHIVED
    assert error_of("EntityTooLarge").reason is Reason.TOO_LARGE
    assert error_of("SlowDown", 503).reason is Reason.THROTTLED
    assert error_of("PermanentRedirect", 301).reason is Reason.WRONG_REGION
    assert error_of("ExpiredToken").reason is Reason.CREDENTIALS_EXPIRED
    assert error_of("RequestTimeTooSkewed", 403).reason is Reason.CLOCK_SKEWED
