"""The symbols with their last prices, and how far each can be trusted: GET /."""
