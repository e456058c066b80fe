"""The reads and writes of the operator for BackupVerifications."""
