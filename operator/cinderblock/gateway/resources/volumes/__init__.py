"""``/volumes``."""
