"""Slots: when polls are due, who claimed them, and which were missed and why."""
