"""What survives a power loss: files and folders synced, and published under their names whole or not at all."""
