"""PostgreSQL: bounded statements, what the gateway reads, and every change that people make, audited."""
