"""Locks of packs and manifests: what they are, and how they are extended."""
