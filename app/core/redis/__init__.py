"""The one way to Redis."""
