"""The Job that copies data: its specification, and the meaning of its state."""
