"""``/snapshots``."""
