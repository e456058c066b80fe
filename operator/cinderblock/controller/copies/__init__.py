"""Copies of stored backups in other stores: gather, start a mover, follow it, and record what it reports."""
