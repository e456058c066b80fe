"""What all resources of Cinder's API share: routes, requests, versions, pages, faults."""
