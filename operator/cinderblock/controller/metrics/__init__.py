"""/metrics of the operator: what it serves, and where the figures come from."""
