"""Schedules: which volumes are backed up when, and which backups are removed."""
