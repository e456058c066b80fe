"""Verify backups without a volume.

`backup` reads one backup as a restore does, and ends at the first damage. `structure` checks one manifest and the
presence of its packs. `data` reads the packs of a volume, each once. The latter two collect damage, and continue.

suspect: a pack that seems to be damaged or missing. It counts after a second reading of the manifests: removals work
at the same time.
"""
