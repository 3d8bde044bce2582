"""Stored points and averages as they were received: pages, and downloads of any length."""
