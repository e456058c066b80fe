"""The restore engine: it reads one manifest and makes a volume equal to the backup."""
