"""What clients send to log in (Identity API v3, "Authentication and token management"); other fields are ignored."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from cinderblock.errors import InvalidInput

_LONGEST = 16_384


class _Part(BaseModel):
    """Nothing of it is ever shown: it holds passwords."""

    model_config = ConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)


class User(_Part):
    """Who logs in. The password is a Kubernetes token, which says more reliably than the name who it is."""

    password: str = Field(repr=False, max_length=_LONGEST)


class Password(_Part):
    """The method "password"."""

    user: User


class Token(_Part):
    """The method "token"."""

    id: str = Field(repr=False, max_length=_LONGEST)


class Identity(_Part):
    """How somebody logs in."""

    methods: list[str] = Field(max_length=10)
    password: Password | None = None
    token: Token | None = None

    @property
    def secret(self) -> str:
        """The Kubernetes token. Raises InvalidInput if there is none by a method that we know."""
        if "password" in self.methods and self.password is not None:
            return self.password.user.password
        if "token" in self.methods and self.token is not None:
            return self.token.id
        raise InvalidInput("Log in with the method password, whose password is a Kubernetes token, or with token")


class Project(_Part):
    """A project by id or name, which are the same here: the name of a namespace."""

    id: str | None = Field(default=None, max_length=253)
    name: str | None = Field(default=None, max_length=253)


class Scope(_Part):
    """What the token is to be for."""

    project: Project | None = None


class Auth(_Part):
    """A request to log in."""

    identity: Identity
    scope: Scope | str | None = None

    @property
    def project(self) -> str | None:
        """The project that is asked for; None: the user's own. Raises InvalidInput for another kind of scope."""
        if self.scope is None or self.scope == "unscoped":
            return None
        if isinstance(self.scope, str) or self.scope.project is None:
            raise InvalidInput("Only projects can be logged in to: a project is a namespace")
        return self.scope.project.id or self.scope.project.name


class AuthRequest(_Part):
    """The whole body."""

    auth: Auth
