"""Object stores as the operator uses them: opened from a BackupStore, guarded by a circuit breaker."""
