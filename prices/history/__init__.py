"""What is stored: pages, downloads of any length, newest averages, one price's evidence, raw answers."""
