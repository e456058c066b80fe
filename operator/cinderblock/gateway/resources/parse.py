"""Parsing objects that the API server returns."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, TypeVar

from pydantic import ValidationError

from cinderblock.api.meta import Object
from cinderblock.observability.log import object_context

_logger = logging.getLogger(__name__)

T = TypeVar("T", bound=Object)


def parse_all(model: type[T], bodies: Iterable[dict[str, Any]]) -> list[T]:
    """Return the objects that parse, and log the others.

    An object that another version of the schema accepted must not hide the rest of its list.
    """
    parsed = []
    for body in bodies:
        try:
            parsed.append(model.model_validate(body))
        except ValidationError as error:
            problems = error.errors(include_input=False, include_url=False)
            with object_context(model.__name__, body["metadata"]["namespace"], body["metadata"]["name"]):
                _logger.warning("Skipped an object that does not parse", extra={"problems": problems})
    return parsed
