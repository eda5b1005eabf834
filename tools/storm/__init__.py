"""The outage programme behind tools/chaos: a stack of its own, a steady load, and what must hold while things fail.

scenarios   what is broken, healed, and promised, one after the other
run         one scenario's time: load on, before, break, revoke, heal, after, load off
stack       PostgreSQL, Redis, backends and two gateways; gateways, tenants, detour (the slow or cut way to Redis)
            and hog (who takes all of PostgreSQL's connections) are its parts
load        the load, a process (load_process starts it): plan (its streams), caller (how a router sends a request)
observation samples become figures · promises figures become checks · report both become a table. Pure
"""
