"""What to do next for a VolumeRestore."""
