"""Stored prices to Kafka."""
