-- For HAProxy: asks gatepost whether a request may pass. See haproxy.md.

local gatepost = "http://127.0.0.1:8080/authz/forward-auth"
local deadline = 5000 -- milliseconds

-- What gatepost reads of the request itself.
local asked_with = { "authorization", "x-api-key", "apikey", "x-request-id", "traceparent" }
-- Who it is, for the backend.
local identity = {
  "x-gatepost-client", "x-gatepost-key-id", "x-gatepost-subject", "x-gatepost-scopes",
}
-- What `Connection` may name and does not take away: the message itself and its way, and WebSocket.
local kept = { host = 1, ["content-length"] = 1, ["transfer-encoding"] = 1, upgrade = 1 }
-- What a client that is refused needs to know.
local told = {
  "content-type", "www-authenticate", "retry-after", "ratelimit", "ratelimit-policy", "x-request-id",
}

local function first(headers, name)
  local values = headers and headers[name]
  return values and (values[0] or values[1])
end

local function refuse(txn, status, headers, body)
  local reply = txn:reply({ status = status, body = body })
  for _, name in ipairs(told) do
    local value = first(headers, name)
    if value then reply:add_header(name, value) end
  end
  txn:done(reply)
end

-- Takes away `Connection` and what it names.
local function end_hop(txn)
  for _, value in pairs(txn.http:req_get_headers()["connection"] or {}) do
    for name in value:lower():gmatch("[^,%s]+") do
      if not kept[name] then txn.http:req_del_header(name) end
    end
  end
  txn.http:req_del_header("connection")
end

core.register_action("gatepost", { "http-req" }, function(txn)
  end_hop(txn)
  local got = txn.http:req_get_headers()
  local headers = {
    ["x-forwarded-method"] = { txn.f:method() },
    ["x-forwarded-uri"] = { txn.f:pathq() },
    ["x-forwarded-host"] = { first(got, "host") or "" },
    ["x-forwarded-for"] = { txn.f:src() },
  }
  for _, name in ipairs(asked_with) do
    local values = {}
    -- HAProxy counts them from 0.
    for at = 0, 8 do
      local value = got[name] and got[name][at]
      if value then values[#values + 1] = value end
    end
    if #values > 0 then headers[name] = values end
  end

  local answer = core.httpclient():get({ url = gatepost, headers = headers, timeout = deadline })
  -- Every answer of gatepost's has an id. What has none is HAProxy's own, about a gatepost that is
  -- not there.
  if not answer or not first(answer.headers, "x-request-id") then
    local headers = { ["retry-after"] = { "1" }, ["content-type"] = { "application/problem+json" } }
    return refuse(txn, 503, headers, '{"status":503,"code":"not_ready"}')
  end
  if answer.status ~= 200 then
    return refuse(txn, answer.status, answer.headers, answer.body or "")
  end
  for _, name in ipairs(identity) do
    txn.http:req_set_header(name, first(answer.headers, name) or "")
  end
end)
