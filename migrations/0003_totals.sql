-- What gatepost settles: the ledger of streams, and totals. Rows are per node, so that gateways
-- never queue for one row; the views add them up. No index on what changes, and room in each page,
-- so that an update stays in its page. Lifetime totals are tables of their own: dropping old hours
-- never lowers a total.

CREATE TABLE gatepost.stream_ledger (
  stream_id uuid PRIMARY KEY,
  node_id text COLLATE "C" NOT NULL,
  lane text COLLATE "C" NOT NULL,
  last_seq bigint NOT NULL DEFAULT 0,
  closed_seq bigint,
  retired_by uuid,
  updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);

CREATE TABLE gatepost.client_totals (
  client_name text COLLATE "C" NOT NULL,
  node_id text COLLATE "C" NOT NULL,
  total_requests bigint NOT NULL DEFAULT 0,
  successful_requests bigint NOT NULL DEFAULT 0,
  failed_requests bigint NOT NULL DEFAULT 0,
  denied_requests bigint NOT NULL DEFAULT 0,
  last_seen_at timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (client_name, node_id)
) WITH (fillfactor = 70);

CREATE TABLE gatepost.client_table_totals (
  client_name text COLLATE "C" NOT NULL,
  table_name text COLLATE "C" NOT NULL,
  operation text COLLATE "C" NOT NULL,
  node_id text COLLATE "C" NOT NULL,
  total_operations bigint NOT NULL DEFAULT 0,
  error_operations bigint NOT NULL DEFAULT 0,
  last_operation_at timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (client_name, table_name, operation, node_id)
) WITH (fillfactor = 70);

CREATE TABLE gatepost.key_totals (
  key_id uuid NOT NULL,
  node_id text COLLATE "C" NOT NULL,
  requests bigint NOT NULL DEFAULT 0,
  last_used_at timestamptz NOT NULL DEFAULT '-infinity',
  PRIMARY KEY (key_id, node_id)
) WITH (fillfactor = 70);

CREATE TABLE gatepost.hourly_totals (
  hour timestamptz NOT NULL,
  key_id uuid NOT NULL,
  client_name text COLLATE "C" NOT NULL,
  table_name text COLLATE "C" NOT NULL,
  operation text COLLATE "C" NOT NULL,
  node_id text COLLATE "C" NOT NULL,
  requests bigint NOT NULL DEFAULT 0,
  succeeded bigint NOT NULL DEFAULT 0,
  denied bigint NOT NULL DEFAULT 0,
  errors bigint NOT NULL DEFAULT 0,
  bytes_in bigint NOT NULL DEFAULT 0,
  bytes_out bigint NOT NULL DEFAULT 0,
  duration_us bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (hour, key_id, client_name, table_name, operation, node_id)
) PARTITION BY RANGE (hour);
CREATE TABLE gatepost.hourly_totals_default PARTITION OF gatepost.hourly_totals DEFAULT
  WITH (fillfactor = 70);

-- A row may exist with nothing seen yet; then the moment is null, not -infinity.
CREATE VIEW gatepost.client_statistics AS
SELECT client_name,
       sum(total_requests)::bigint AS total_requests,
       sum(successful_requests)::bigint AS successful_requests,
       sum(failed_requests)::bigint AS failed_requests,
       sum(denied_requests)::bigint AS denied_requests,
       nullif(max(last_seen_at), '-infinity') AS last_seen_at
FROM gatepost.client_totals GROUP BY client_name;

CREATE VIEW gatepost.client_table_statistics AS
SELECT client_name, table_name, operation,
       sum(total_operations)::bigint AS total_operations,
       sum(error_operations)::bigint AS error_operations,
       nullif(max(last_operation_at), '-infinity') AS last_operation_at
FROM gatepost.client_table_totals GROUP BY client_name, table_name, operation;

CREATE VIEW gatepost.key_activity AS
SELECT key_id, sum(requests)::bigint AS requests,
       nullif(max(last_used_at), '-infinity') AS last_used_at
FROM gatepost.key_totals GROUP BY key_id;

CREATE VIEW gatepost.usage_hourly AS
SELECT hour, client_name, key_id, table_name, operation,
       sum(requests)::bigint AS requests,
       sum(succeeded)::bigint AS succeeded,
       sum(denied)::bigint AS denied,
       sum(errors)::bigint AS errors,
       sum(bytes_in)::bigint AS bytes_in,
       sum(bytes_out)::bigint AS bytes_out,
       sum(duration_us)::bigint AS duration_us
FROM gatepost.hourly_totals GROUP BY hour, client_name, key_id, table_name, operation;

CREATE TABLE gatepost.sessions (
  id uuid PRIMARY KEY,
  node_id text COLLATE "C" NOT NULL,
  subject text COLLATE "C" NOT NULL,
  client_name text COLLATE "C" NOT NULL,
  scopes text[] NOT NULL DEFAULT '{}',
  generation bigint NOT NULL DEFAULT 0,
  advanced_at timestamptz NOT NULL DEFAULT now(),
  revoked_at timestamptz,
  expires_at timestamptz NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 70);
CREATE INDEX sessions_by_subject ON gatepost.sessions (subject);
