"""Linux interfaces for files, devices and memory."""
