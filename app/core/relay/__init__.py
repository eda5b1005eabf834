"""From here to the backends: which one, with which header fields, over which connection."""
