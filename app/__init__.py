"""The public gateway: where everything lives.

The way of a request, top-down, and no way back:

    door.py        a client's connection, on Sanic's hooks, and the requests of it that take a task. occupancy.py: how
                   many there may be. client_connection.py: back-pressure, how long it waits for the client, its end
    conversation.py  what comes in on it, and its requests in order, as far as that takes no task.
                   reader.py: bytes become Messages (message.py) and their bodies (body.py), strictly
    fast_path.py   one Message that needs no task: the steps, a kept connection, the answer, all in callbacks. What is
                   out of the ordinary goes on as below, from where it is (ways.py)
    exchange.py    one Message in a task: Sanic's stream. Makes the GatewayRequest (request.py), runs Sanic
    server.py      THE order: identify, authenticate, admit; the handler; stamp
    middleware.py  those steps, each a few lines over one noun of the core: context.py is what they learn (and log),
                   admission.py the question to the limiter, look_up.py the one to the database
    proxy.py       the handler: choice.py names the service, core/relay/delivery.py finds a target that answers
                   (outbound.py writes the head for it, upstream.py sends it), the answer (relayed.py) goes back
    answer_writer.py  every answer's bytes: status line, fields, framed body

Around it: `__main__.py` (settings, port), listener.py (the port, and how it closes), arbiter.py (who starts, watches
and replaces the workers), workers.py (a worker) with doorway.py (where it accepts, over descriptors.py) and drain.py
(its end), shared_mark.py (what they tell each other), services.py (what a worker's requests are served with),
health.py, errors.py and responses.py (everything that goes wrong, through core/envelope.py), ready.py
(answers whose fields are ready-made lines).

The core, shared with admin/ and tools/, knows neither Sanic nor them. On its ground floor the values that all pass
around: model, errors, and envelope, the one renderer of errors. Its rooms:

    keys/      credential (mint, digest, judge) · keyring (find, fetch) over keytable, digest_memory, changelog ·
               lookups (what memory lacks, asked for together) · refresh and refresher (what keeps it fresh) ·
               failed_keys (who guesses) · usage (last_used_at) · static_key · holding (what a ring has)
    limits/    limiter (admit) over waiting (group: who waits together), tally
               (questions: how a batch is asked, question: one call and its answer), denials, fallback, breaker, watch,
               outage, settlement · bucket (the arithmetic) and limiter.lua (the same inside Redis) · announce (header
               fields, the 429) · gauge (a bucket from outside)
    relay/     routing · headers · proxies (whom to believe) · delivery (attempts, retries, the queue) over balancer
               (the choice) over target and standing (set aside or not), retry_budget · upstream (sends) over pool (the
               kept connections) over peer (one of them) and outbox (writes in a row) · answer_reader (what a peer
               hears, by llhttp or known_lines: heads read before) · probes (BACKEND_HEALTH_PATH) · upgrade (what may
               be switched to) · tunnel (two connections joined) over frames (WebSocket's) · reset (RST)
    changes/   feed (publish, listen, poll) over change_message · presence and roster (which workers live)
    data/      database (bounded statements) · store (the gateway's SQL) · issuer (every change of organizations and
               keys, audited) over ledger, rules, records · listing · idempotency · operations (flush, reset)
    redis/     link (one supervised connection) over wire (RESP3), refusals and translation
    process/   settings over variables, addresses, admin_token · telemetry, output over pending, access, redaction ·
               request_id, duration, version · compiled (what tools/compile made of the hot path, while it is fresh)

Glossary. Organization: who is limited and billed. Credential: one key, judged. Service: a name that requests are
proxied under. Backend: where one of its targets is. Target: what a worker knows of it. Place: room for one request
there. Trial: the request that finds out whether a target works again. Peer: one connection. Refusal: an answer that
is a value; failure: an exception. Verdict: what the limiter decided. Burst: unused requests of a minute that roll
over. Change: something memory may no longer rely on. Mark: how far the journal of changes was read. Local: limits
counted by each worker for itself while Redis is away. Drain: the end of a worker in good order. Arbiter: the
process over the workers. Tunnel: a client's connection and a backend's, joined after a switch of protocols (101).
"""

from app.core.process import compiled

compiled.install()
