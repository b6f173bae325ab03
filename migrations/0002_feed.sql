-- The feed. Whoever changes one of the four tables of truth first takes the one row of
-- `change_counter`, and with it a revision that all rows of that transaction carry. The row's lock
-- makes revisions dense and ordered by commit: who sees revision N sees everything up to N.

CREATE TABLE gatepost.change_counter (
  one boolean PRIMARY KEY DEFAULT true CHECK (one),
  revision bigint NOT NULL
);

-- Per revision one row with a mark and no table name: after a restore the same revision bears
-- another mark. And one row for each row that went away.
CREATE TABLE gatepost.change_log (
  revision bigint NOT NULL,
  table_name text COLLATE "C" NOT NULL DEFAULT '',
  row_id text COLLATE "C" NOT NULL DEFAULT '',
  mark uuid,
  at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (revision, table_name, row_id),
  CHECK ((table_name = '') = (mark IS NOT NULL))
);

INSERT INTO gatepost.change_counter (revision) VALUES (0);
INSERT INTO gatepost.change_log (revision, mark) VALUES (0, gen_random_uuid());

-- Once per transaction, before the statement locks any row of its own: two writers that touch the
-- same rows in opposite order meet here instead of in a deadlock. The setting lives as long as the
-- transaction, and goes back with a savepoint as the counter does. It runs with its owner's rights:
-- who may insert a key need not be allowed to write the counter.
CREATE FUNCTION gatepost.take_revision() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
DECLARE
  taken bigint;
BEGIN
  IF coalesce(current_setting('gatepost.revision', true), '') = '' THEN
    UPDATE gatepost.change_counter SET revision = revision + 1 RETURNING revision INTO STRICT taken;
    INSERT INTO gatepost.change_log (revision, mark) VALUES (taken, gen_random_uuid());
    PERFORM set_config('gatepost.revision', taken::text, true);
    PERFORM pg_notify('gatepost_changes', '');
  END IF;
  RETURN NULL;
END
$$;

CREATE FUNCTION gatepost.stamp_revision() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  NEW.revision := current_setting('gatepost.revision')::bigint;
  RETURN NEW;
END
$$;

-- A tombstone for the row's key; its columns are the trigger's arguments.
CREATE FUNCTION gatepost.leave_tombstone() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $$
BEGIN
  INSERT INTO gatepost.change_log (revision, table_name, row_id)
  SELECT current_setting('gatepost.revision')::bigint, TG_TABLE_NAME,
         string_agg(to_jsonb(OLD) ->> part.name, '/' ORDER BY part.place)
  FROM unnest(TG_ARGV) WITH ORDINALITY AS part (name, place)
  ON CONFLICT DO NOTHING;
  RETURN NULL;
END
$$;

CREATE FUNCTION gatepost.refuse_truncate() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'TRUNCATE of gatepost.% would leave no trace for the gateways', TG_TABLE_NAME
    USING HINT = 'Use DELETE instead.';
END
$$;

CREATE TRIGGER a_take BEFORE INSERT OR UPDATE OR DELETE ON gatepost.clients
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.take_revision();
CREATE TRIGGER b_stamp BEFORE INSERT OR UPDATE ON gatepost.clients
  FOR EACH ROW EXECUTE FUNCTION gatepost.stamp_revision();
CREATE TRIGGER c_gone AFTER DELETE ON gatepost.clients
  FOR EACH ROW EXECUTE FUNCTION gatepost.leave_tombstone('name');
CREATE TRIGGER c_renamed AFTER UPDATE ON gatepost.clients
  FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION gatepost.leave_tombstone('name');
CREATE TRIGGER d_truncate BEFORE TRUNCATE ON gatepost.clients
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.refuse_truncate();

CREATE TRIGGER a_take BEFORE INSERT OR UPDATE OR DELETE ON gatepost.policies
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.take_revision();
CREATE TRIGGER b_stamp BEFORE INSERT OR UPDATE ON gatepost.policies
  FOR EACH ROW EXECUTE FUNCTION gatepost.stamp_revision();
CREATE TRIGGER c_gone AFTER DELETE ON gatepost.policies
  FOR EACH ROW EXECUTE FUNCTION gatepost.leave_tombstone('name');
CREATE TRIGGER c_renamed AFTER UPDATE ON gatepost.policies
  FOR EACH ROW WHEN (OLD.name <> NEW.name) EXECUTE FUNCTION gatepost.leave_tombstone('name');
CREATE TRIGGER d_truncate BEFORE TRUNCATE ON gatepost.policies
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.refuse_truncate();

CREATE TRIGGER a_take BEFORE INSERT OR UPDATE OR DELETE ON gatepost.api_keys
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.take_revision();
CREATE TRIGGER b_stamp BEFORE INSERT OR UPDATE ON gatepost.api_keys
  FOR EACH ROW EXECUTE FUNCTION gatepost.stamp_revision();
CREATE TRIGGER c_gone AFTER DELETE ON gatepost.api_keys
  FOR EACH ROW EXECUTE FUNCTION gatepost.leave_tombstone('id');
CREATE TRIGGER c_renamed AFTER UPDATE ON gatepost.api_keys
  FOR EACH ROW WHEN (OLD.id <> NEW.id) EXECUTE FUNCTION gatepost.leave_tombstone('id');
CREATE TRIGGER d_truncate BEFORE TRUNCATE ON gatepost.api_keys
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.refuse_truncate();

CREATE TRIGGER a_take BEFORE INSERT OR UPDATE OR DELETE ON gatepost.revocations
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.take_revision();
CREATE TRIGGER b_stamp BEFORE INSERT OR UPDATE ON gatepost.revocations
  FOR EACH ROW EXECUTE FUNCTION gatepost.stamp_revision();
CREATE TRIGGER c_gone AFTER DELETE ON gatepost.revocations
  FOR EACH ROW EXECUTE FUNCTION gatepost.leave_tombstone('kind', 'id');
CREATE TRIGGER c_renamed AFTER UPDATE ON gatepost.revocations
  FOR EACH ROW WHEN ((OLD.kind, OLD.id) <> (NEW.kind, NEW.id))
  EXECUTE FUNCTION gatepost.leave_tombstone('kind', 'id');
CREATE TRIGGER d_truncate BEFORE TRUNCATE ON gatepost.revocations
  FOR EACH STATEMENT EXECUTE FUNCTION gatepost.refuse_truncate();
