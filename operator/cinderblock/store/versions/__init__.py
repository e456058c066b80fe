"""Earlier versions of the objects of a container: read them, and bring them back."""
