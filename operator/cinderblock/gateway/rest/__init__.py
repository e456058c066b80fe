"""What all resources of Cinder's API share: routes, requests, microversions, pages, faults."""
