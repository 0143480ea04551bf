"""What leaves the store as files of their own: configurations, runs and tables of predictions."""
