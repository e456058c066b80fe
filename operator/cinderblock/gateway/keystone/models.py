"""The body of a login (Identity API v3, "Authentication and token management"). Unknown fields are ignored."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cinderblock.errors import InvalidInput

_MAX_TOKEN_CHARACTERS = 16_384


class _Part(BaseModel):
    """Base of all parts. They hold passwords, so errors do not show their values."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class User(_Part):
    """The user. The password is a Kubernetes token, which identifies them more reliably than a name."""

    password: str = Field(repr=False, max_length=_MAX_TOKEN_CHARACTERS)


class Password(_Part):
    """The method "password"."""

    user: User


class Token(_Part):
    """The method "token"."""

    id: str = Field(repr=False, max_length=_MAX_TOKEN_CHARACTERS)


class Identity(_Part):
    """The credentials, by one or several methods."""

    methods: list[str] = Field(max_length=10)
    password: Password | None = None
    token: Token | None = None

    @property
    def secret(self) -> str:
        """The Kubernetes token. Raises InvalidInput if no supported method gives one."""
        if "password" in self.methods and self.password is not None:
            return self.password.user.password
        if "token" in self.methods and self.token is not None:
            return self.token.id
        raise InvalidInput("Use the method password, with a Kubernetes token as the password, or the method token")


class Project(_Part):
    """A project by id or name. Both are the name of the namespace."""

    id: str | None = Field(default=None, max_length=253)
    name: str | None = Field(default=None, max_length=253)


class Scope(_Part):
    """The scope of the token."""

    project: Project | None = None


class Auth(_Part):
    """Credentials and scope."""

    identity: Identity
    scope: Scope | str | None = None

    @property
    def project(self) -> str | None:
        """The requested project; None for the user's own. Raises InvalidInput for another kind of scope."""
        if self.scope is None or self.scope == "unscoped":
            return None
        if isinstance(self.scope, str) or self.scope.project is None:
            raise InvalidInput("The scope must be a project, which is a namespace")
        return self.scope.project.id or self.scope.project.name


class AuthRequest(_Part):
    """The body of a login."""

    auth: Auth
