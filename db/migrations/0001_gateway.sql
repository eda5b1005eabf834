-- Organizations, their plans and limits, API keys, the journal of changes that gateways poll, and the audit log.
-- PostgreSQL 13 or newer: gen_random_uuid() and xid8 are part of the core since then.

CREATE TABLE plans (
    tier text PRIMARY KEY CHECK (tier ~ '^[a-z][a-z0-9_]{0,31}$'),
    per_minute integer NOT NULL CHECK (per_minute > 0),
    per_day integer NOT NULL CHECK (per_day > 0),
    burst integer NOT NULL CHECK (burst >= 0)
);

INSERT INTO plans (tier, per_minute, per_day, burst) VALUES
    ('basic', 100, 10000, 50),
    ('premium', 1000, 100000, 500),
    ('enterprise', 10000, 1000000, 5000);

-- `version` counts every change of a row (a trigger below): it is what an ETag can be made of.
CREATE TABLE organizations (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    name text NOT NULL CONSTRAINT organization_name_is_readable
        CHECK (length(name) <= 200 AND btrim(name) <> '' AND name !~ '[[:cntrl:]]'),
    tier text NOT NULL REFERENCES plans (tier) ON UPDATE CASCADE,
    active boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version bigint NOT NULL DEFAULT 1
);
CREATE INDEX organizations_by_age ON organizations (created_at, id);
CREATE INDEX organizations_by_tier ON organizations (tier);

CREATE TABLE organization_limits (
    organization_id uuid PRIMARY KEY REFERENCES organizations (id) ON DELETE CASCADE,
    per_minute integer NOT NULL CHECK (per_minute > 0),
    per_day integer NOT NULL CHECK (per_day > 0),
    burst integer NOT NULL CHECK (burst >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version bigint NOT NULL DEFAULT 1
);

-- An expiry before the creation is allowed on purpose: setting it into the past is how a person ends a key by hand.
CREATE TABLE api_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid NOT NULL REFERENCES organizations (id),
    name text NOT NULL CONSTRAINT key_name_is_readable
        CHECK (length(name) <= 200 AND btrim(name) <> '' AND name !~ '[[:cntrl:]]'),
    env text NOT NULL CHECK (env IN ('test', 'live')),
    prefix text NOT NULL CONSTRAINT prefix_fits_env CHECK (prefix ~ ('^sk_' || env || '_[0-9a-f]{4}$')),
    key_digest text NOT NULL UNIQUE CONSTRAINT digest_is_sha256_hex CHECK (key_digest ~ '^[0-9a-f]{64}$'),
    scopes text[] NOT NULL DEFAULT '{}' CHECK (cardinality(scopes) <= 32 AND array_position(scopes, NULL) IS NULL),
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text CHECK (length(created_by) <= 200 AND created_by !~ '[[:cntrl:]]'),
    last_used_at timestamptz,
    expires_at timestamptz CHECK (isfinite(expires_at)),
    revoked_at timestamptz,
    revoked_reason text CHECK (length(revoked_reason) <= 500 AND btrim(revoked_reason) <> ''),
    replaced_by uuid REFERENCES api_keys (id) CHECK (replaced_by <> id),
    updated_at timestamptz NOT NULL DEFAULT now(),
    version bigint NOT NULL DEFAULT 1,
    CONSTRAINT revocation_has_time_and_reason CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);
CREATE INDEX api_keys_by_organization ON api_keys (organization_id, created_at, id);
CREATE INDEX api_keys_by_age ON api_keys (created_at, id);
CREATE INDEX api_keys_by_prefix ON api_keys (prefix);
CREATE INDEX api_keys_by_expiry ON api_keys (expires_at, id) WHERE revoked_at IS NULL AND expires_at IS NOT NULL;
CREATE INDEX api_keys_by_last_use ON api_keys (last_used_at, id);
CREATE INDEX api_keys_revoked ON api_keys (revoked_at, id) WHERE revoked_at IS NOT NULL;
CREATE INDEX api_keys_by_replacement ON api_keys (replaced_by) WHERE replaced_by IS NOT NULL;

-- Row versions ------------------------------------------------------------------------------------------------------

CREATE FUNCTION bump_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.version := OLD.version + 1;
    NEW.updated_at := now();
    RETURN NEW;
END $$;

CREATE TRIGGER organizations_version BEFORE UPDATE ON organizations
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION bump_version();
CREATE TRIGGER organization_limits_version BEFORE UPDATE ON organization_limits
    FOR EACH ROW WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION bump_version();
-- Every column but last_used_at: gateways write that one each minute, and it changes nothing for a caller.
CREATE TRIGGER api_keys_version BEFORE UPDATE OF id, organization_id, name, env, prefix, key_digest, scopes, created_at,
        created_by, expires_at, revoked_at, revoked_reason, replaced_by ON api_keys
    FOR EACH ROW EXECUTE FUNCTION bump_version();

-- The journal of changes --------------------------------------------------------------------------------------------

-- Filled by triggers alone, so that whatever writes to the tables, psql included, reaches every gateway.
-- `xid` orders rows by visibility: ids are handed out before the commit and become visible in another order.
CREATE TABLE changes (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('key', 'organization', 'all')),
    ref uuid,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT all_names_nothing CHECK ((kind = 'all') = (ref IS NULL))
);
CREATE INDEX changes_by_xid ON changes (xid);
CREATE INDEX changes_by_age ON changes (at);

-- One statement that touches more than 1,000 things is announced as "all": the journal and its readers stay quick.
CREATE FUNCTION announce(kind text, refs uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF cardinality(refs) > 1000 THEN
        INSERT INTO changes (kind) VALUES ('all');
    ELSE
        INSERT INTO changes (kind, ref) SELECT announce.kind, ref FROM unnest(refs) AS ref;
    END IF;
END $$;

CREATE FUNCTION announce_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM announce('key', (SELECT array_agg(id) FROM touched));
    RETURN NULL;
END $$;

CREATE FUNCTION announce_updated_keys() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM announce('key', (
        SELECT array_agg(touched.id)
        FROM touched LEFT JOIN former ON former.id = touched.id AND former.version = touched.version
        WHERE former.id IS NULL
    ));
    RETURN NULL;
END $$;

CREATE FUNCTION announce_organizations() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM announce('organization', (SELECT array_agg(id) FROM touched));
    RETURN NULL;
END $$;

CREATE FUNCTION announce_limits() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM announce('organization', (SELECT array_agg(organization_id) FROM touched));
    RETURN NULL;
END $$;

CREATE FUNCTION announce_all() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO changes (kind) VALUES ('all');
    RETURN NULL;
END $$;

CREATE TRIGGER api_keys_inserted AFTER INSERT ON api_keys
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_keys();
CREATE TRIGGER api_keys_updated AFTER UPDATE ON api_keys
    REFERENCING OLD TABLE AS former NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_updated_keys();
CREATE TRIGGER api_keys_deleted AFTER DELETE ON api_keys
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_keys();
CREATE TRIGGER api_keys_truncated AFTER TRUNCATE ON api_keys FOR EACH STATEMENT EXECUTE FUNCTION announce_all();

CREATE TRIGGER organizations_inserted AFTER INSERT ON organizations
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_organizations();
CREATE TRIGGER organizations_updated AFTER UPDATE ON organizations
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_organizations();
CREATE TRIGGER organizations_deleted AFTER DELETE ON organizations
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_organizations();
CREATE TRIGGER organizations_truncated AFTER TRUNCATE ON organizations
    FOR EACH STATEMENT EXECUTE FUNCTION announce_all();

CREATE TRIGGER organization_limits_inserted AFTER INSERT ON organization_limits
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_limits();
CREATE TRIGGER organization_limits_updated AFTER UPDATE ON organization_limits
    REFERENCING NEW TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_limits();
CREATE TRIGGER organization_limits_deleted AFTER DELETE ON organization_limits
    REFERENCING OLD TABLE AS touched FOR EACH STATEMENT EXECUTE FUNCTION announce_limits();
CREATE TRIGGER organization_limits_truncated AFTER TRUNCATE ON organization_limits
    FOR EACH STATEMENT EXECUTE FUNCTION announce_all();

CREATE TRIGGER plans_changed AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON plans
    FOR EACH STATEMENT EXECUTE FUNCTION announce_all();

-- The audit log -----------------------------------------------------------------------------------------------------

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    who text NOT NULL CHECK (length(who) <= 200 AND btrim(who) <> ''),
    address inet,
    action text NOT NULL CHECK (action ~ '^[a-z_]+\.[a-z_]+$'),
    subject_kind text NOT NULL CHECK (subject_kind ~ '^[a-z_]+$'),
    subject_id uuid,
    before jsonb,
    after jsonb,
    CONSTRAINT audit_holds_no_secret CHECK (
        NOT coalesce(before, '{}') ?| ARRAY['api_key', 'key_digest'] AND NOT coalesce(after, '{}') ?| ARRAY['api_key', 'key_digest']
    )
);
CREATE INDEX audit_log_by_subject ON audit_log (subject_id, id);
CREATE INDEX audit_log_by_who ON audit_log (who, id);
CREATE INDEX audit_log_by_time ON audit_log (at, id);

CREATE FUNCTION refuse_rewriting() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'audit_log is append-only: % refused', lower(TG_OP);
END $$;

CREATE TRIGGER audit_log_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_rewriting();
