"""Fill claims that ask for their backup with dataSourceRef."""
