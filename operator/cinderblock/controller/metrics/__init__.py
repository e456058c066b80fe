"""/metrics of the operator: the server, and the sources of its values."""
