"""Schedules: their times, the volumes that they select, and which VolumeBackups to create when."""
