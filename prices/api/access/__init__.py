"""Whom a call is from, what it may do, and how many of them are answered. Only where API_AUTH is `keys`."""
