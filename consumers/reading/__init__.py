"""From Kafka to events, and back to committed offsets."""
