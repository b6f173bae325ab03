-- A policy is in use by who may still be let through. A key that is revoked or has expired is
-- refused for that, whatever its policy says, and keeps no policy. (Whoever lets it live again by
-- hand gives it a policy that is there: without one it is undecidable.)
CREATE OR REPLACE FUNCTION gatepost.refuse_policy_in_use() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
  user_of_it text;
BEGIN
  SELECT u.who INTO user_of_it FROM (
    SELECT 'client ' || name AS who FROM gatepost.clients
    WHERE coalesce(policy, 'default') = OLD.name
    UNION ALL
    SELECT 'key ' || k.id FROM gatepost.api_keys AS k
    WHERE k.policy = OLD.name AND coalesce(k.expires_at > now(), true) AND NOT EXISTS (
      SELECT FROM gatepost.revocations AS r
      WHERE r.kind = 'key' AND r.id = k.id::text AND r.at <= now())
  ) AS u LIMIT 1;
  IF user_of_it IS NOT NULL THEN
    RAISE EXCEPTION 'policy % is in use by %', OLD.name, user_of_it
      USING ERRCODE = 'foreign_key_violation',
            HINT = 'Give its clients and keys another policy first.';
  END IF;
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END
$$;

-- Another name takes it away from them just as well.
CREATE TRIGGER a_renamed_in_use BEFORE UPDATE OF name ON gatepost.policies
  FOR EACH ROW WHEN (OLD.name <> NEW.name)
  EXECUTE FUNCTION gatepost.refuse_policy_in_use();
