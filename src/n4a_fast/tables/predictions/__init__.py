"""The prediction tables: rows and arrays still in memory, in log records, and as written."""
