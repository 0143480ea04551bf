"""One workspace in this process, and its promises: who owns the file, who lives, what an exit or a fork does."""
