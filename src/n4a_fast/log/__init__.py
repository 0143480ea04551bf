"""The write-ahead log: small flushes made durable beside the store file, and read back after a crash."""
