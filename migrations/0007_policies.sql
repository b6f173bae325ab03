-- Policies in force: a mode for each client, a history, and no removal under somebody's feet.

-- Wins over the policy's own mode; null: as the policy says.
ALTER TABLE gatepost.clients ADD COLUMN mode text COLLATE "C"
  CHECK (mode IN ('enforce', 'observe'));

-- What it was before and is now, where that can be said.
ALTER TABLE gatepost.audit_log ADD COLUMN detail jsonb;

-- Who has a policy that is not there can be neither let through nor refused: it goes last. (No
-- foreign key: keys and clients may arrive before their policy.)
CREATE FUNCTION gatepost.refuse_policy_in_use() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  user_of_it text;
BEGIN
  SELECT u.who INTO user_of_it FROM (
    SELECT 'client ' || name AS who FROM gatepost.clients
    WHERE coalesce(policy, 'default') = OLD.name
    UNION ALL
    SELECT 'key ' || id FROM gatepost.api_keys WHERE policy = OLD.name
  ) AS u LIMIT 1;
  IF user_of_it IS NOT NULL THEN
    RAISE EXCEPTION 'policy % is in use by %', OLD.name, user_of_it
      USING ERRCODE = 'foreign_key_violation',
            HINT = 'Give its clients and keys another policy first.';
  END IF;
  RETURN OLD;
END
$$;
CREATE TRIGGER a_in_use BEFORE DELETE ON gatepost.policies
  FOR EACH ROW EXECUTE FUNCTION gatepost.refuse_policy_in_use();
