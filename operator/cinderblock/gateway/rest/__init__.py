"""Shared parts of all resources of Cinder's API: routes, requests, microversions, pages, faults."""
