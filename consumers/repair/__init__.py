"""Prove, rebuild and replay what was stored."""
