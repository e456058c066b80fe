"""Leader election: one of the replicas acts, and stops before another one may start."""
