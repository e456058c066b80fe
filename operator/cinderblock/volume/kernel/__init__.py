"""What Linux offers for files, devices and memory."""
