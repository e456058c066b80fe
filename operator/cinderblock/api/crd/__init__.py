"""From the models of our kinds to CustomResourceDefinitions."""
