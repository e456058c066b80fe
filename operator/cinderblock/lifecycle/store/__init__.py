"""Decide the next step of a BackupStore."""
