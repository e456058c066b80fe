"""Bring back the backups that a container with versions held at an earlier time."""
