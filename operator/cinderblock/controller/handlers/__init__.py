"""The kopf handlers: which events the operator listens to, and how they reach the work queue. Only they import kopf."""
