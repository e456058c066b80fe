"""versitygw with its IAM service, which has AssumeRoleWithWebIdentity: one S3 server, and one token service."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass

import boto3

from cinderblock.api.mover import StoreLocation
from cinderblock.store.credentials import S3Credentials
from tests.cluster import choices, toolchain
from tests.cluster.programs import Program
from tests.cluster.s3 import REGION, _answers
from tests.cluster.scopes import scope
from tests.support.broker.issuer import ADDRESS, URL, Issuer

ROLE = "broker"
AUDIENCE = "sts.example.com"
SUBJECT = "system:serviceaccount:cinderblock-system:broker"


@dataclass(frozen=True)
class TokenService:
    """A running pair of servers.

    Attributes:
        url: of the S3 server.
        sts_url: of the token service.
        role_arn: a role that may do everything in all buckets, and that the issuer's tokens for SUBJECT may assume.
        credentials: of the root user.
    """

    url: str
    sts_url: str
    role_arn: str
    credentials: S3Credentials

    def location(self, container: str, **more: object) -> StoreLocation:
        """Return the location of a container of this server."""
        return StoreLocation.model_validate({"endpoint_url": self.url, "container": container, **more})


@contextmanager
def token_service(issuer: Issuer) -> Iterator[TokenService]:
    """Run both servers until the block ends."""
    binary = str(toolchain.tool("versitygw"))
    port, sts_port = choices.free_ports(2)
    access_key, secret_key = secrets.token_hex(10), secrets.token_hex(20)
    environment = {"ROOT_ACCESS_KEY": access_key, "ROOT_SECRET_KEY": secret_key}
    with scope("sts-") as programs:
        objects, users = programs.directory / "objects", programs.directory / "iam"
        objects.mkdir()
        users.mkdir()
        socket = programs.directory / "iam.sock"
        common = (f"--region={REGION}", "--quiet")
        iam = (binary, f"--port=127.0.0.1:{sts_port}", *common, "iam", f"--dir={users}", f"--private-ports={socket}")
        programs.start(Program("iam", iam, environment))
        programs.wait("iam", lambda: _answers(sts_port), 20)
        s3 = (binary, f"--port=127.0.0.1:{port}", *common, f"--iam-standalone-endpoint={socket}", "posix", str(objects))
        programs.start(Program("versitygw", s3, environment))
        programs.wait("versitygw", lambda: _answers(port), 20)
        sts_url = f"http://127.0.0.1:{sts_port}"
        role = _make_role(sts_url, access_key, secret_key, issuer)
        yield TokenService(f"http://127.0.0.1:{port}", sts_url, role, S3Credentials(access_key, secret_key))


def _make_role(url: str, access_key: str, secret_key: str, issuer: Issuer) -> str:
    """Create the provider and the role, and return the ARN of the role."""
    client = boto3.client(
        "iam", endpoint_url=url, region_name=REGION, aws_access_key_id=access_key, aws_secret_access_key=secret_key
    )
    with closing(client):
        provider = client.create_open_id_connect_provider(
            Url=URL, ClientIDList=[AUDIENCE], ThumbprintList=[issuer.thumbprint]
        )["OpenIDConnectProviderArn"]
        trust = {
            "Effect": "Allow",
            "Principal": {"Federated": provider},
            "Action": "sts:AssumeRoleWithWebIdentity",
            "Condition": {"StringEquals": {f"{ADDRESS}:aud": AUDIENCE, f"{ADDRESS}:sub": SUBJECT}},
        }
        everything = {"Effect": "Allow", "Action": "s3:*", "Resource": ["arn:aws:s3:::*"]}
        role = client.create_role(RoleName=ROLE, AssumeRolePolicyDocument=_document(trust))["Role"]["Arn"]
        client.put_role_policy(RoleName=ROLE, PolicyName="all", PolicyDocument=_document(everything))
        return str(role)


def _document(statement: Mapping[str, object]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
