"""The life of a polling job."""
