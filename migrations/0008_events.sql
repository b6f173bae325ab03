-- Events as they happen, and how long they and hourly usage are kept.

ALTER TABLE gatepost.admission_events
  ADD COLUMN observed boolean NOT NULL DEFAULT false,
  ADD COLUMN limit_name text;

-- Drops monthly partitions that ended longer ago than they are kept, and deletes as old rows from
-- the default partitions, at most `rows_max` of each. Lifetime totals and quotas are tables of their
-- own, and stay. An interval of zero keeps for ever.
CREATE FUNCTION gatepost.expire(
  events interval, hourly interval, rows_max integer DEFAULT 10000
) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
  parent record;
  child record;
  before timestamptz;
  gone integer := 0;
  deleted integer;
BEGIN
  FOR parent IN
    SELECT * FROM (VALUES
      ('hourly_totals', 'hour', hourly), ('auth_attempts', 'at', events),
      ('admission_events', 'at', events), ('request_log', 'at', events), ('audit_log', 'at', events)
    ) AS t (name, moment, kept)
    WHERE kept > interval '0'
  LOOP
    before := now() - parent.kept;
    FOR child IN
      SELECT c.relname AS name FROM pg_inherits AS i
      JOIN pg_class AS c ON c.oid = i.inhrelid
      WHERE i.inhparent = format('gatepost.%I', parent.name)::regclass
        AND c.relname ~ ('^' || parent.name || '_[0-9]{4}_[0-9]{2}$')
        AND (to_date(right(c.relname, 7), 'YYYY_MM') + interval '1 month') AT TIME ZONE 'UTC' <= before
    LOOP
      EXECUTE format('DROP TABLE gatepost.%I', child.name);
      gone := gone + 1;
    END LOOP;
    EXECUTE format(
      'DELETE FROM gatepost.%1$I WHERE ctid = ANY (ARRAY(
         SELECT ctid FROM gatepost.%1$I WHERE %2$I < $1 LIMIT $2))',
      parent.name || '_default', parent.moment) USING before, rows_max;
    GET DIAGNOSTICS deleted = ROW_COUNT;
    gone := gone + deleted;
  END LOOP;
  RETURN gone;
END
$$;
