"""Of all replicas one acts, and stops before another one may begin."""
