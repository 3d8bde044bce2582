"""One bounded HTTP client, and no secret in what it returns."""
