"""Our kinds in version v1alpha1: `VolumeBackup`, `VolumeRestore` and `BackupStore`."""
