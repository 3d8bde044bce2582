"""The views: one call each."""
