"""``/backups``."""
