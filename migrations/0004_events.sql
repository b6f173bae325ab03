-- Append-only tables. An event's id is a uuid v7 and `at` is derived from it, so that the same
-- event always has the same primary key and arriving twice changes nothing.

CREATE TABLE gatepost.auth_attempts (
  event_id uuid NOT NULL,
  at timestamptz NOT NULL,
  node_id text NOT NULL,
  client_name text,
  key_id uuid,
  client_ip inet,
  code text NOT NULL,
  PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE gatepost.auth_attempts_default PARTITION OF gatepost.auth_attempts DEFAULT;

CREATE TABLE gatepost.admission_events (
  event_id uuid NOT NULL,
  at timestamptz NOT NULL,
  node_id text NOT NULL,
  client_name text NOT NULL,
  key_id uuid,
  policy text,
  code text NOT NULL,
  PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE gatepost.admission_events_default PARTITION OF gatepost.admission_events DEFAULT;

CREATE TABLE gatepost.request_log (
  event_id uuid NOT NULL,
  at timestamptz NOT NULL,
  node_id text NOT NULL,
  request_id text NOT NULL,
  client_name text,
  key_id uuid,
  method text NOT NULL,
  host text NOT NULL,
  path text NOT NULL,
  status integer NOT NULL,
  bytes_in bigint NOT NULL,
  bytes_out bigint NOT NULL,
  duration_us bigint NOT NULL,
  PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE gatepost.request_log_default PARTITION OF gatepost.request_log DEFAULT;

CREATE TABLE gatepost.audit_log (
  event_id uuid NOT NULL,
  at timestamptz NOT NULL,
  node_id text NOT NULL,
  actor text NOT NULL,
  action text NOT NULL,
  subject text NOT NULL,
  PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE gatepost.audit_log_default PARTITION OF gatepost.audit_log DEFAULT;

CREATE TABLE gatepost.dead_letters (
  event_id uuid NOT NULL,
  at timestamptz NOT NULL,
  node_id text NOT NULL,
  stream_id uuid NOT NULL,
  lane text NOT NULL,
  reason text NOT NULL,
  fact jsonb NOT NULL,
  PRIMARY KEY (event_id, at)
) PARTITION BY RANGE (at);
CREATE TABLE gatepost.dead_letters_default PARTITION OF gatepost.dead_letters DEFAULT;

-- Makes the monthly partitions (UTC) from this month on, where they are missing. A month of which
-- the default partition already holds rows stays there: moving rows is work for a quiet hour.
CREATE FUNCTION gatepost.ensure_partitions(months_ahead integer DEFAULT 2) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  parent record;
  first timestamptz;
  beyond timestamptz;
  child text;
  taken boolean;
  made integer := 0;
BEGIN
  FOR parent IN
    SELECT * FROM (VALUES
      ('hourly_totals', 'hour', ' WITH (fillfactor = 70)'), ('auth_attempts', 'at', ''),
      ('admission_events', 'at', ''), ('request_log', 'at', ''), ('audit_log', 'at', ''),
      ('dead_letters', 'at', '')) AS t (name, moment, storage)
  LOOP
    FOR ahead IN 0..months_ahead LOOP
      first := (date_trunc('month', now() AT TIME ZONE 'UTC') + ahead * interval '1 month')
        AT TIME ZONE 'UTC';
      beyond := (first AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
      child := parent.name || to_char(first AT TIME ZONE 'UTC', '_YYYY_MM');
      CONTINUE WHEN to_regclass(format('gatepost.%I', child)) IS NOT NULL;
      EXECUTE format('SELECT EXISTS (SELECT FROM gatepost.%I WHERE %I >= $1 AND %I < $2)',
        parent.name || '_default', parent.moment, parent.moment)
        INTO taken USING first, beyond;
      CONTINUE WHEN taken;
      EXECUTE format('CREATE TABLE gatepost.%I PARTITION OF gatepost.%I'
        ' FOR VALUES FROM (%L) TO (%L)%s', child, parent.name, first, beyond, parent.storage);
      made := made + 1;
    END LOOP;
  END LOOP;
  RETURN made;
END
$$;

SELECT gatepost.ensure_partitions();
