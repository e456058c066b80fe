"""Retention: which backups of a schedule are kept, which are about to go, and which are removed (restic: forget)."""
