"""Predictions: rows and arrays waiting in memory, the tables they go to, and the questions asked of them."""
