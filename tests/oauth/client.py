"""A stock OAuth client: discovery, client credentials, refresh, introspection, revocation."""

import sys

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session
from authlib.jose import JsonWebKey, JsonWebToken

issuer, client_id, client_secret, refresh_token = sys.argv[1:]

found = requests.get(f"{issuer}/.well-known/oauth-authorization-server", timeout=20).json()
assert found["issuer"] == issuer, found
keys = JsonWebKey.import_key_set(requests.get(found["jwks_uri"], timeout=20).json())
jwt = JsonWebToken(["EdDSA"])


def checked(token):
    """The claims of an access token, checked as a resource server would (RFC 9068 §4)."""
    claims = jwt.decode(
        token,
        keys,
        claims_options={
            "iss": {"essential": True, "value": issuer},
            "aud": {"essential": True, "value": issuer},
            "exp": {"essential": True},
            "sub": {"essential": True},
            "client_id": {"essential": True, "value": client_id},
        },
    )
    claims.validate()
    assert claims.header["typ"] == "at+jwt", claims.header
    return claims


def call(token):
    """A request on the data path."""
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(f"{issuer}/authz/forward-auth", headers=headers, timeout=20)


# An API key for an access token, authenticated in both ways that the metadata offers.
for method in ("client_secret_basic", "client_secret_post"):
    client = OAuth2Session(client_id, client_secret, token_endpoint_auth_method=method)
    token = client.fetch_token(
        found["token_endpoint"], grant_type="client_credentials", scope="orders.read"
    )
    assert token["scope"] == "orders.read" and "refresh_token" not in token, token
    assert checked(token["access_token"])["sub"] == client_id
    answer = call(token["access_token"])
    assert answer.status_code == 200, answer.text
    assert answer.headers["X-Gatepost-Scopes"] == "orders.read"

# A session's token is refreshed by the library itself when it has expired.
seen = []
session = OAuth2Session(
    client_id,
    token_endpoint_auth_method="none",
    token_endpoint=found["token_endpoint"],
    token={
        "access_token": "expired",
        "refresh_token": refresh_token,
        "token_type": "Bearer",
        "expires_in": 1,
        "expires_at": 1,
    },
    update_token=lambda token, refresh_token=None, access_token=None: seen.append(token),
)
answer = session.get(f"{issuer}/authz/forward-auth", timeout=20)
assert answer.status_code == 200, answer.text
assert answer.headers["X-Gatepost-Subject"] == "alice"
assert len(seen) == 1 and seen[0]["refresh_token"] != refresh_token, seen
access = seen[0]["access_token"]
assert checked(access)["sub"] == "alice"

# Introspection and revocation.
told = client.introspect_token(found["introspection_endpoint"], token=access).json()
assert told["active"] and told["sub"] == "alice" and told["client_id"] == client_id, told
second = seen[0]["refresh_token"]
told = client.introspect_token(found["introspection_endpoint"], token=second).json()
assert told["active"] and told["token_type"] == "refresh_token", told
answer = client.revoke_token(found["revocation_endpoint"], token=second)
assert answer.status_code == 200, answer.text
for gone in (access, second, "nonsense"):
    told = client.introspect_token(found["introspection_endpoint"], token=gone).json()
    assert told == {"active": False}, told
assert call(access).status_code == 401
try:
    session.refresh_token(found["token_endpoint"], refresh_token=second)
except OAuthError as error:
    assert error.error == "invalid_grant", error
else:
    raise AssertionError("a revoked session was refreshed")

# A wrong secret is told as the library expects it.
wrong = OAuth2Session(client_id, "gp_live_wrong")
try:
    wrong.fetch_token(found["token_endpoint"], grant_type="client_credentials")
except OAuthError as error:
    assert error.error == "invalid_client", error
else:
    raise AssertionError("a wrong secret was accepted")

print("all is well")
