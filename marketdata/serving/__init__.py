"""What the service does for every request and answer, whatever is asked for."""
