"""What the service adds to PostgreSQL."""
