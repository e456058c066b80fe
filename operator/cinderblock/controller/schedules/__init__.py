"""Schedules: read claims and backups, create VolumeBackups, and write the status."""
