"""The parts of beat's scheduler for poll jobs: who leads, what is due when, and how it is sent."""
