"""ClusterBackupStores: the BackupStores of namespaces that may use them, and the way to the broker."""
