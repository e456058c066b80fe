"""The one error that the cluster's own code raises on purpose."""


class ClusterError(Exception):
    """Something that the caller can read and act on: what is wrong, where, and what to do about it."""
