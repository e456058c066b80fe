"""Alarms from the numbers of a backup, compared with those of earlier backups of the volume. Nothing is read again."""
