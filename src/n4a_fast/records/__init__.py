"""Runs, pipelines, chains and logs: each module owns its table's SQL and its rows still in memory."""
