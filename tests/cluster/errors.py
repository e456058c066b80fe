"""The error that the cluster's code raises on purpose."""


class ClusterError(Exception):
    """A problem that the caller can fix. The message says what is wrong, where, and what to do."""
