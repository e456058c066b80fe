"""What to do next for a VolumeBackup."""
