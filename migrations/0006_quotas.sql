-- What was used of quotas: one row per quota, client or key, period and gateway. Several gateways
-- never wait for each other on one row.
CREATE TABLE gatepost.quota_totals (
  quota text COLLATE "C" NOT NULL,
  scope text COLLATE "C" NOT NULL,
  period_start timestamptz NOT NULL,
  period_end timestamptz NOT NULL,
  node_id text COLLATE "C" NOT NULL,
  used bigint NOT NULL DEFAULT 0,
  PRIMARY KEY (quota, scope, period_start, node_id)
) WITH (fillfactor = 70);

CREATE VIEW gatepost.quota_usage AS
SELECT quota, scope, period_start, max(period_end) AS period_end, sum(used)::bigint AS used
FROM gatepost.quota_totals GROUP BY quota, scope, period_start;
