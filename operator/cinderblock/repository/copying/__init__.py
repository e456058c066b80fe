"""Copy stored backups from one store to another, object by object, without a volume."""
