"""One module for each provider: requests and the reading of answers."""
