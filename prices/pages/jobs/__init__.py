"""The jobs: how each fares, and how one is made and changed: /pages/jobs."""
