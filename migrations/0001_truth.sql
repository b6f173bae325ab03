-- What gatepost is told: clients, policies, keys, revocations. Rows refer to each other by name and
-- without foreign keys, because facts may arrive in any order: a revocation before its key, a key
-- before its client.

CREATE SCHEMA IF NOT EXISTS gatepost;

-- Microseconds since 1970 in both directions; the smallest bigint stands for -infinity.
CREATE FUNCTION gatepost.from_micros(micros bigint) RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE micros
    WHEN -9223372036854775808 THEN timestamptz '-infinity'
    WHEN 9223372036854775807 THEN timestamptz 'infinity'
    ELSE timestamptz '1970-01-01 00:00:00+00' + micros * interval '1 microsecond'
  END
$$;

CREATE FUNCTION gatepost.to_micros(moment timestamptz) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE
    WHEN moment = '-infinity' THEN -9223372036854775808
    WHEN moment = 'infinity' THEN 9223372036854775807
    ELSE (extract(epoch FROM moment) * 1000000)::bigint
  END
$$;

CREATE DOMAIN gatepost.name AS text COLLATE "C"
  CHECK (octet_length(VALUE) BETWEEN 1 AND 128 AND VALUE !~ '[\x01-\x1f\x7f]');

CREATE TABLE gatepost.clients (
  name gatepost.name PRIMARY KEY,
  policy gatepost.name,
  enabled boolean NOT NULL DEFAULT true,
  revision bigint NOT NULL DEFAULT 0
);
CREATE INDEX clients_by_revision ON gatepost.clients (revision, name);

CREATE TABLE gatepost.policies (
  name gatepost.name PRIMARY KEY,
  spec jsonb NOT NULL,
  revision bigint NOT NULL DEFAULT 0
);
CREATE INDEX policies_by_revision ON gatepost.policies (revision, name);

CREATE TABLE gatepost.api_keys (
  id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  digest bytea NOT NULL UNIQUE CHECK (octet_length(digest) = 32),
  prefix text NOT NULL DEFAULT '',
  last4 text NOT NULL DEFAULT '',
  client_name gatepost.name NOT NULL,
  policy gatepost.name,
  scopes text[] NOT NULL DEFAULT '{}' CHECK (array_position(scopes, NULL) IS NULL),
  enabled boolean NOT NULL DEFAULT true,
  expires_at timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  revision bigint NOT NULL DEFAULT 0
);
CREATE INDEX api_keys_by_revision ON gatepost.api_keys (revision, id);

CREATE TABLE gatepost.revocations (
  kind text COLLATE "C" NOT NULL CHECK (kind IN ('key', 'subject', 'client')),
  id text COLLATE "C" NOT NULL CHECK (octet_length(id) BETWEEN 1 AND 128),
  at timestamptz NOT NULL DEFAULT '-infinity',
  revision bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (kind, id)
);
CREATE INDEX revocations_by_revision ON gatepost.revocations (revision, kind, id);
