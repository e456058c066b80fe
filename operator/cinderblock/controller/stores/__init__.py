"""The object stores of BackupStores: opened, limited, and searched for references between backups."""
