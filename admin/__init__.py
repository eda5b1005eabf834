"""The admin API: organizations, keys, limits, gateways and the audit log, for those who run the SaaS.

A request reads top-down: `server` (one table of endpoints, one order of steps) -> `steps` (identify, authorize, read,
stamp) -> the handler named in the table (`organizations`, `keys`, `limits`, ...) -> `desk` (one transaction on the
core's verbs, then the broadcast). Handlers name what they need in their signatures; sanic-ext puts it there, and the
OpenAPI document (`openapi`) is made from the same signatures and the same table.

Shapes live in `shapes`, refusals in `errors`. The rules themselves are the core's (`issuer`, `rules`), shared with the
commands in `tools`.
"""
