"""Decide the next step of a VolumeBackup."""
