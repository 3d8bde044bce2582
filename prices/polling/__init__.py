"""One poll of the jobs that are due together."""
