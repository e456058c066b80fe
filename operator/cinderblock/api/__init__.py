"""The words of Cinderblock: pydantic models and enums. No I/O, no clock.

backup: one copy of a volume (`VolumeBackup`). restore: one run that writes a backup into a volume (`VolumeRestore`).
store: where backups live (`BackupStore`). phase: Cinder's status. condition: Kubernetes' view of the same.
task: what the operator asks of a mover. report: what the mover answers. cluster: the few fields of Kubernetes' own
objects that decisions need.
"""
