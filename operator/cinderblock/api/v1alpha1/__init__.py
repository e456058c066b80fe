"""Our kinds in version v1alpha1, such as `VolumeBackup`, `VolumeRestore` and `BackupStore`."""
