"""CustomResourceDefinitions of our kinds, which are generated from the models.

Only ``crds/generate.py`` and tests import this package: it needs Kubernetes' models, which no program loads.
"""
