"""API keys: minting and judging them, the ring that holds them in memory, what keeps it fresh."""
