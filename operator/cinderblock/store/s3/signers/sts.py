"""Session credentials from a security token service (AWS STS: AssumeRoleWithWebIdentity)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cinderblock import __version__
from cinderblock.errors import AccessDenied, CinderblockError, InvalidInput, StoreUnreachable
from cinderblock.store.credentials import S3Credentials
from cinderblock.store.deadline import limit_seconds
from cinderblock.store.s3.address import StoreAddress
from cinderblock.store.s3.client import CONNECT_TIMEOUT, check_certificates, check_endpoint, make_service_client
from cinderblock.store.s3.errors import translate

CALL_SECONDS: Final = 20.0
"""Time limit of a call. The token service fetches the keys of the cluster's issuer the first time."""


_TEMPORARY: Final = frozenset({"IDPCommunicationError", "Throttling", "ThrottlingException", "SlowDown"})
"""Codes that ask for another attempt (AWS STS API: AssumeRoleWithWebIdentity, Errors)."""


class SessionCredentials(NamedTuple):
    """Credentials of one session, and when they expire."""

    credentials: S3Credentials
    expires_at: datetime


def assume_role(
    *,
    endpoint_url: str | None,
    region: str,
    ca_file: str | None,
    role_arn: str,
    session_name: str,
    token: str,
    policy: str,
    seconds: int,
) -> SessionCredentials:
    """Return session credentials of a role, narrowed by a session policy.

    Args:
        endpoint_url: of the token service; None: that of AWS for the region.
        region: of the token service.
        ca_file: PEM certificates that replace those of the system.
        role_arn: the role.
        session_name: what logs of the S3 server call the session: 2 to 64 characters of [A-Za-z0-9_=,.@-].
        token: an OpenID Connect token of the caller.
        policy: the session policy, in JSON.
        seconds: lifetime of the credentials.

    Raises AccessDenied if the service refuses the token or the role, other CinderblockErrors if it does not answer.
    No message contains the token.
    """
    client = _client(endpoint_url, region, ca_file)
    address = StoreAddress(client.meta.endpoint_url, role_arn, region)
    try:
        with limit_seconds(CALL_SECONDS) as deadline, translate(address, deadline):
            try:
                answer: Any = client.assume_role_with_web_identity(
                    RoleArn=role_arn,
                    RoleSessionName=session_name,
                    WebIdentityToken=token,
                    Policy=policy,
                    DurationSeconds=seconds,
                )
            except ClientError as error:
                raise _refusal(error, client.meta.endpoint_url, role_arn, token) from None
            return _parse(answer)
    finally:
        client.close()


def _client(endpoint_url: str | None, region: str, ca_file: str | None) -> Any:
    check_endpoint(endpoint_url)
    if ca_file is not None:
        check_certificates(ca_file)
    config = Config(
        signature_version=UNSIGNED,
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=CALL_SECONDS,
        retries={"total_max_attempts": 1, "mode": "standard"},
        user_agent_extra=f"cinderblock/{__version__}",
    )
    try:
        return make_service_client("sts", region, endpoint_url, ca_file, config)
    except (BotoCoreError, ValueError) as error:
        raise InvalidInput(f"Cannot use the token service at {endpoint_url or 'AWS'}: {error}") from error


def _parse(answer: Any) -> SessionCredentials:
    """Return the credentials of an answer. Raises KeyError and ValueError for one that is incomplete."""
    found = answer["Credentials"]
    expires_at = found["Expiration"]
    if not isinstance(expires_at, datetime):
        raise ValueError("no time of expiration")  # noqa: TRY004  # the answer is wrong
    credentials = S3Credentials(found["AccessKeyId"], found["SecretAccessKey"], found["SessionToken"])
    aware = expires_at if expires_at.tzinfo is not None else expires_at.replace(tzinfo=UTC)
    return SessionCredentials(credentials, aware)


def _refusal(error: ClientError, endpoint: str, role_arn: str, token: str) -> CinderblockError:
    """Return the error that an answer reports. The answer may quote the token, so it is redacted."""
    fields, status = error.response["Error"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    code = str(fields.get("Code", ""))
    said = StoreAddress(endpoint, role_arn, "").redact(str(fields.get("Message", "")).replace(token, "***"))
    message = f"Cannot get session credentials of role {role_arn} from {endpoint}: {code or status}: {said}"
    if code in _TEMPORARY or status >= 500:
        return StoreUnreachable(message)
    return AccessDenied(f"{message}. Check the role, its trust in the issuer of the cluster, and the audience.")
