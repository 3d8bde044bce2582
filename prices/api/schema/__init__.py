"""The answers' shapes, for the OpenAPI schema."""
