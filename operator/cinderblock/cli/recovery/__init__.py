"""Recovery after the loss of a cluster: the parts of ``cinderblock recover``."""
