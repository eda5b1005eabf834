"""Rate limits: the bucket, the limiter over Redis, what decides while Redis is away, what clients are told."""
