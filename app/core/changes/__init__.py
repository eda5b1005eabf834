"""What memory may no longer rely on, told through Redis and caught up from the database; and which workers live."""
