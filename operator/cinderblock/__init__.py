"""Cinderblock: backups of PersistentVolumeClaims in S3, with the rules of OpenStack Cinder's backup API."""

from importlib.metadata import version

__version__ = version("cinderblock")
