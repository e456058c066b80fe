"""One step for one object: gather, decide, execute, write the status."""
