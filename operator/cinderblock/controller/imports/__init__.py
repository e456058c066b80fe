"""Import of the backups that stores hold: listing, reading, creating VolumeBackups, and marks of released backups."""
