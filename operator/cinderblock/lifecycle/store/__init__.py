"""What to do next for a BackupStore."""
