"""Pages of metrics, parsed as Prometheus does."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


class Samples:
    """The samples of a page.

    Attributes:
        values: by name and labels.
    """

    def __init__(self, values: dict[tuple[str, frozenset[tuple[str, str]]], float]) -> None:
        self.values = values

    def value(self, name: str, **labels: str) -> float | None:
        """Return the value with exactly these labels, or None."""
        return self.values.get((f"cinderblock_{name}", frozenset(labels.items())))

    def names(self) -> set[str]:
        """Return the names of all samples."""
        return {name for name, _ in self.values}

    def labels(self, name: str) -> set[str]:
        """Return the names of a metric's labels."""
        return {key for found, labels in self.values if found == name for key, _ in labels}


def samples(page: str) -> Samples:
    """Parse a page in the text format. A sample that is there twice is an error."""
    values: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(page):
        assert family.documentation, f"{family.name} has no text"
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in values, f"{key} is there twice"
            values[key] = sample.value
    return Samples(values)
