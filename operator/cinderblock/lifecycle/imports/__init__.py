"""Import of the backups that a store holds (spec.import of a BackupStore): names, selection, guards and status."""
