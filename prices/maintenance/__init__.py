"""What keeps tables and queues in order."""
