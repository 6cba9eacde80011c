"""Identities by JSON Web Tokens: Cloudflare Access, Google's IAP, any OpenID Connect proxy."""
