"""Decide the next step of a VolumeRestore."""
