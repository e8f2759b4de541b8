"""Logs. One constant message per line with keys; no secrets, no prompts, no answers."""
