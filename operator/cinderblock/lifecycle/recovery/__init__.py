"""Recovery after the loss of a cluster: which stored backup becomes which claim, and in which order."""
