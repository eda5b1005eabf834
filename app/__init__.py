"""The public gateway: where everything lives.

The way of a request, top-down, and no way back:

    door.py        a client's connection and its deadlines. reader.py: its bytes become Messages (message.py), strictly
    exchange.py    one Message and its answer: Sanic's stream. Makes the GatewayRequest (request.py), runs Sanic, logs
    server.py      THE order: identify, authenticate, admit; the handler; stamp
    middleware.py  those steps, each a few lines over one noun of the core
    proxy.py       the handler: outbound.py writes the head, core/relay/upstream.py sends it, the answer is relayed

Around it: `__main__.py` (settings, port), workers.py (the processes) and drain.py (their end), services.py (what a
worker's requests are served with), health.py, errors.py and responses.py (everything that goes wrong, through
core/envelope.py).

The core, shared with admin/ and tools/, knows neither Sanic nor them. On its ground floor the values that all pass
around: model, errors, and envelope, the one renderer of errors. Its rooms:

    keys/      credential (mint, digest, judge) · keyring (find, fetch) over keytable, unknown_keys, changelog · refresh
               and refresher (what keeps it fresh) · usage (last_used_at) · static_key · holding (what a ring has)
    limits/    limiter (admit) over waiting, tally, denials, fallback, breaker, watch, outage · bucket (the arithmetic)
               and limiter.lua (the same inside Redis) · announce (header fields, the 429) · gauge (a bucket from
               outside)
    relay/     routing · headers · proxies (whom to believe) · upstream (the pool) over peer (one connection)
    changes/   feed (publish, listen, poll) over change_message · presence and roster (which workers live)
    data/      database (bounded statements) · store (the gateway's SQL) · issuer (every change of organizations and
               keys, audited) over ledger, rules, records · listing · idempotency · operations (flush, reset)
    redis/     link (one supervised connection) over wire (RESP3) and refusals
    process/   settings over variables, addresses, admin_token · telemetry, output, access, redaction · request_id,
               duration, version

Glossary. Organization: who is limited and billed. Credential: one key, judged. Backend: a service that requests are
proxied to; peer: one connection to it. Refusal: an answer that is a value; failure: an exception. Verdict: what the
limiter decided. Burst: unused requests of a minute that roll over. Change: something memory may no longer rely on.
Mark: how far the journal of changes was read. Local: limits counted by each worker for itself while Redis is away.
Drain: the end of a worker in good order.
"""
