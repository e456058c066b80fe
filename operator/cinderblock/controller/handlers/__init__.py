"""kopf: which events the operator listens to, and how they get into the work queue. The only room that imports kopf."""
