"""Each table: its rows in memory, its SQL, and the form in which its rows are written."""
