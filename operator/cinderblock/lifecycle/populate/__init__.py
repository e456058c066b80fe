"""Claims that ask for their backup with dataSourceRef: which backup each gets, and its restore."""
