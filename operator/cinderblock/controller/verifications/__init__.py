"""What the operator reads and writes for BackupVerifications."""
