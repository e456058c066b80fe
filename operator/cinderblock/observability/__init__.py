"""What machines are told about us: metrics in Prometheus' format.

state: figures that the world says, counted anew at every reading, so that a restart loses none of them. instruments:
what only this process knows, durations and counts since its start. families: both as metrics; the names and labels are
there and in docs/guide/observability.md. No label has a value that users can make many of without making as many
objects: a volume's series are there while the volume and a VolumeBackup of it are, a store's while the BackupStore is.
"""
