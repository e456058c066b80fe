"""The Job that copies data: how it is made, and what its state means."""
