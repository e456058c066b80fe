"""BackupGrants: which backups other namespaces may restore, and what holds while they do."""
