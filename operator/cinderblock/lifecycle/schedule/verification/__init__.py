"""Verifications of a schedule: their times, the volumes to verify, and which old BackupVerifications are removed."""
