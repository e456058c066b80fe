"""CEL rules for fields of a spec, as ``x-kubernetes-validations`` contains them."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

Rule = dict[str, str]

_CEL_KEYWORDS: Final = (
    "true", "false", "null", "in", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let",
    "loop", "package", "namespace", "return", "var", "void", "while",
)  # fmt: skip


def fixed(field: str, mutable: str) -> Rule:
    """Return a rule that ``field`` of a spec can be neither changed nor added nor removed."""
    new, old = f"self.{escaped(field)}", f"oldSelf.{escaped(field)}"
    return {
        "rule": f"has({new}) == has({old}) && (!has({new}) || {new} == {old})",
        "message": f"{field} cannot be changed: {mutable}",
        "fieldPath": f".{field}",
        "reason": "FieldValueForbidden",
    }


def escaped(field: str) -> str:
    """Return the name of ``field`` in CEL, where keywords are between underscores (Kubernetes: CEL, "Escaping")."""
    return f"__{field}__" if field in _CEL_KEYWORDS else field


def all_fixed(model: type[BaseModel], mutable: frozenset[str], sentence: str) -> tuple[Rule, ...]:
    """Return one rule for each field that is not in ``mutable``, so that the error names the field."""
    fields = [info.alias or name for name, info in model.model_fields.items()]
    return tuple(fixed(field, sentence) for field in fields if field not in mutable)
