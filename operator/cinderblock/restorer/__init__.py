"""The restore engine: read one manifest and make a volume equal to the backup."""
