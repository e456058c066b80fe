"""Cinderblock: backups of PersistentVolumeClaims in S3, with the rules of OpenStack Cinder's backup API."""

__version__ = "0.1.0"
"""As in pyproject.toml. Asking the installed package for it takes 17 ms, at every start of every process."""
