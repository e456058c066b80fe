"""BackupGrants: what a restore from another namespace needs, and the grants themselves."""
