"""JSON Schemas of Kubernetes' own types, for our fields that are copied into the pod of a mover.

The schemas come from the models of the package ``kubernetes``. Only the generator of the CustomResourceDefinitions and
tests import this package: loading the models of five types costs 0.8 s of CPU time and 24 MiB (Python 3.11).
"""

from __future__ import annotations

from typing import Any, Final

from kubernetes.client import models

Schema = dict[str, Any]

INT_OR_STRING: Final = "x-kubernetes-int-or-string"

_QUANTITY: Final[Schema] = {
    INT_OR_STRING: True,
    "pattern": r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$",
}
"""A quantity (apimachinery ``resource.Quantity``). The models call it a string, but users write ``cpu: 2`` as well."""

_QUANTITIES: Final = ("V1ResourceRequirements.limits", "V1ResourceRequirements.requests")
"""Maps whose values are quantities."""

_CHOICES: Final = {
    "V1Toleration.effect": ("", "NoSchedule", "PreferNoSchedule", "NoExecute"),
    "V1Toleration.operator": ("", "Exists", "Equal", "Lt", "Gt"),
    "V1NodeSelectorRequirement.operator": ("In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"),
    "V1LabelSelectorRequirement.operator": ("In", "NotIn", "Exists", "DoesNotExist"),
    "V1SeccompProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"),
    "V1AppArmorProfile.type": ("Localhost", "RuntimeDefault", "Unconfined"),
}
"""Values that Kubernetes accepts where the models only say string (kubernetes/pkg/apis/core/validation)."""


def core_schema(name: str) -> Schema:
    """Return the JSON Schema of a type of ``core/v1`` or ``meta/v1``, such as ``Toleration`` or ``LabelSelector``."""
    model = getattr(models, f"V1{name}")
    schema: Schema = model.model_json_schema()
    _correct(model.__name__, schema)
    for definition, part in schema.get("$defs", {}).items():
        _correct(definition, part)
    return schema


def _correct(model: str, schema: Schema) -> None:
    """Add what the package leaves out of the schema of one model, and remove what its generator adds."""
    _clean_description(schema)
    for name, field in schema["properties"].items():
        _clean_description(field)
        path = f"{model}.{name}"
        if path in _CHOICES:
            field |= {"enum": list(_CHOICES[path])}
        if path in _QUANTITIES:
            field |= {"type": "object", "additionalProperties": _QUANTITY}
            del field["anyOf"]


def _clean_description(schema: Schema) -> None:
    """Cut the list of Python attributes off a description, and end it with a full stop, except after a URL."""
    if "description" in schema:
        text = schema["description"].partition("\n\nAttributes:\n")[0].strip()
        is_finished = text.endswith(".") or "://" in text.split()[-1]
        schema["description"] = text if is_finished else f"{text}."
