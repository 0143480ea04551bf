"""Questions asked of stored predictions: rows, rankings, arrays, summaries of chains."""
