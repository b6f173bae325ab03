-- Sessions, settled by the gateway that made each. They never take the change counter: a refresh
-- concerns one gateway, and there may be thousands a second.

-- When a generation from beyond what its gateway knew was taken on its proof: once per session.
ALTER TABLE gatepost.sessions ADD COLUMN recovered_at timestamptz;

-- After a lost disk a gateway reads its sessions back, page by page.
CREATE INDEX sessions_by_node ON gatepost.sessions (node_id, id);
-- What is over is removed in small steps.
CREATE INDEX sessions_by_expiry ON gatepost.sessions (node_id, expires_at);
