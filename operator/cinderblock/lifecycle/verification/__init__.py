"""Decisions about BackupVerifications: choose a backup and a part, run a mover, and record what it found."""
