"""Copies of stored backups in other stores: which are missing, which mover makes them, and what its report means."""
