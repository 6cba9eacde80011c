"""Every way in which the gateway refuses a client or closes its connection, each with the tests that show it.

A row without tests is a refusal of the protocol that this gateway has no occasion for; `when` says why. The reference page prints the
others.
"""

from __future__ import annotations

from dataclasses import dataclass

HANDSHAKE = "tests/kernel/protocol/test_handshake.py"
SESSION = "tests/kernel/protocol/test_session.py"
SERVER = "tests/kernel/protocol/test_server.py"
HOSTILE = "tests/kernel/protocol/test_hostile.py"
VERSIONS = "tests/kernel/protocol/test_versions.py"
IDENTITIES = "tests/kernel/protocol/test_identities.py"
VOUCHED = "tests/kernel/protocol/test_vouched.py"
PAIRING = "tests/plugins/pairing/test_handshakes.py"
SETUPS = "tests/plugins/pairing/test_setup_codes.py"
PAIRED = "tests/plugins/pairing/test_pairing_live.py"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row: a close code, an HTTP status or the code of an error, and what tells it apart."""

    code: str
    reason: str
    detail: str
    when: str
    tests: tuple[str, ...] = ()


def _row(code: str, reason: str, detail: str, when: str, *tests: str) -> Refusal:
    return Refusal(code, reason, detail, when, tests)


REFUSALS = (
    _row(
        "1000",
        "",
        "",
        "no hello within 15 seconds of the upgrade, or the first frame is not JSON",
        f"{HANDSHAKE}::test_a_silent_client_is_closed_plainly",
        f"{HANDSHAKE}::test_what_is_no_request_ends_the_connection_without_an_answer",
        f"{SERVER}::test_a_silent_handshake_ends_with_a_plain_close",
    ),
    _row(
        "1002",
        "protocol mismatch",
        "PROTOCOL_MISMATCH",
        "the client's range of versions does not reach the gateway's",
        f"{HANDSHAKE}::test_protocol_versions",
        f"{VERSIONS}::test_only_probes_and_nodes_may_be_one_version_behind",
        f"{VERSIONS}::test_a_mismatch_on_a_socket_is_an_error_and_1002",
    ),
    _row(
        "1008",
        "invalid request frame",
        "",
        "the first frame is JSON and no request; there is no answer",
        f"{HANDSHAKE}::test_what_is_no_request_ends_the_connection_without_an_answer",
    ),
    _row(
        "1008",
        "invalid handshake: first request must be connect",
        "",
        "another method comes first",
        f"{HANDSHAKE}::test_the_first_request_must_be_connect",
    ),
    _row(
        "1008",
        "invalid connect params: …",
        "",
        "the params of connect do not fit; each wrong key is named",
        f"{HANDSHAKE}::test_bad_connect_params_are_named",
        f"{VERSIONS}::test_a_long_reason_is_cut_at_120_bytes",
    ),
    _row("1008", "invalid role", "", "a role that is neither operator nor node", f"{HANDSHAKE}::test_another_role_is_refused"),
    _row(
        "1008",
        "origin not allowed",
        "CONTROL_UI_ORIGIN_NOT_ALLOWED",
        "a page client comes without an Origin",
        f"{HANDSHAKE}::test_a_page_client_without_an_origin_is_no_browser",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_TOKEN_MISSING, AUTH_TOKEN_MISMATCH, AUTH_PASSWORD_MISSING, AUTH_PASSWORD_MISMATCH",
        "the shared secret is missing or wrong",
        f"{HANDSHAKE}::test_each_failed_proof_has_its_code_and_next_step",
        f"{SERVER}::test_a_refused_client_reads_the_error_before_the_close",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_TOKEN_NOT_CONFIGURED, AUTH_PASSWORD_NOT_CONFIGURED",
        "the gateway has no secret to compare with",
        f"{HANDSHAKE}::test_a_gateway_without_its_secret_lets_nobody_in",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_RATE_LIMITED",
        "ten wrong tries within a minute; five minutes for an address, a growing delay for loopback",
        f"{HANDSHAKE}::test_ten_wrong_tries_lock_an_address_out_for_five_minutes",
        f"{HANDSHAKE}::test_loopback_is_only_delayed",
        f"{HANDSHAKE}::test_a_page_on_loopback_is_locked_out_by_its_origin",
    ),
    _row(
        "1008",
        "client … must connect with a device identity, …",
        "CONTROL_UI_DEVICE_IDENTITY_REQUIRED",
        "a client that needs a device has none",
        f"{HANDSHAKE}::test_clients_that_need_a_device_are_told_so",
    ),
    _row(
        "1008",
        "device identity required; …",
        "DEVICE_IDENTITY_REQUIRED",
        "neither a device nor the shared secret",
        f"{HANDSHAKE}::test_nodes_and_operators_without_proof_need_a_device",
    ),
    _row(
        "1008",
        "device identity refused: …",
        "DEVICE_AUTH_*",
        "a flaw in the device's proof: its id, signature, nonce, key or time",
        f"{HANDSHAKE}::test_each_flaw_of_a_device_proof_has_its_code",
        f"{HANDSHAKE}::test_the_device_signature_binds_what_is_asked_for",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_DEVICE_TOKEN_MISMATCH, AUTH_BOOTSTRAP_TOKEN_INVALID",
        "the device's token is another's, another role's or revoked; the setup code is used up, over or none",
        f"{PAIRING}::test_each_wrong_credential_of_a_device_has_its_code",
        f"{PAIRING}::test_a_token_opens_for_its_device_and_role_only",
        f"{SETUPS}::test_a_code_opens_once_also_for_the_device_that_used_it",
        f"{SETUPS}::test_of_devices_that_show_one_code_at_once_one_is_in",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_SCOPE_MISMATCH",
        "a device token asks for more scopes than it has",
        f"{PAIRING}::test_a_narrowed_token_opens_for_no_more_than_it_has",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_IDENTITY_HEADER_REQUIRED",
        "mode trusted-proxy: the trusted proxy did not name the user, or lacks a required header",
        f"{VOUCHED}::test_each_refusal_of_a_proxy_has_its_code",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_UNAUTHORIZED",
        "mode trusted-proxy: it is no trusted proxy that names the user, or the user is not allowed",
        f"{VOUCHED}::test_each_refusal_of_a_proxy_has_its_code",
        f"{VOUCHED}::test_nobody_but_the_proxy_names_users",
        f"{VOUCHED}::test_a_proxy_on_this_machine_names_users_only_with_consent",
    ),
    _row(
        "1008",
        "unauthorized: …",
        "AUTH_UNAUTHORIZED with authReason identity_*",
        "what an authenticator found does not hold, has expired, or is given nothing in `gateway.auth.identities`",
        f"{IDENTITIES}::test_a_refusal_says_its_word_and_its_cure",
        f"{IDENTITIES}::test_without_entries_nobody_gets_anything",
        f"{IDENTITIES}::test_a_proof_that_has_ended_proves_nothing",
    ),
    _row(
        "1008",
        "pairing required (requestId:…)",
        "PAIRING_REQUIRED",
        "a proven device is not paired, or asks for a role or scopes beyond what was approved",
        f"{PAIRING}::test_a_device_that_waits_is_told_everything_it_needs",
        f"{PAIRING}::test_each_upgrade_waits_for_a_person_and_is_given_by_one",
    ),
    _row(
        "1008",
        "slow consumer",
        "",
        "more waits for the client than `policy.maxBufferedBytes`",
        f"{SERVER}::test_a_slow_consumer_is_closed_and_the_others_are_served",
    ),
    _row(
        "1008",
        "repeated unauthorized calls",
        "",
        "more than ten calls of methods for another role",
        f"{SESSION}::test_more_than_ten_calls_of_another_role_end_the_connection",
        f"{VERSIONS}::test_more_than_ten_calls_of_another_role_close_the_socket",
    ),
    _row(
        "1009",
        "",
        "",
        "more than 64 KiB before hello-ok, or a frame over `policy.maxPayload` after it",
        f"{SERVER}::test_a_payload_over_64_kib_before_hello_is_1009",
        f"{SERVER}::test_a_payload_over_the_limit_after_hello_is_1009",
        f"{HOSTILE}::test_fragments_before_hello_are_counted_together",
    ),
    _row(
        "1011",
        "internal error",
        "",
        "a fault of the gateway itself; its log has the details",
        f"{VERSIONS}::test_a_fault_of_the_gateway_itself_is_1011",
    ),
    _row(
        "1012",
        "service restart",
        "",
        "the gateway stops; `shutdown` was sent before",
        f"{SERVER}::test_closing_the_server_tells_every_client_and_waits_for_none",
        "tests/conformance/test_reference_client.py::test_a_gateway_that_stops_tells_the_client_and_is_found_again",
    ),
    _row(
        "1013",
        "gateway starting",
        "startup-sidecars",
        "connect before the gateway serves; `retryAfterMs` 500",
        f"{HANDSHAKE}::test_a_gateway_that_does_not_serve_says_when_to_come_back",
        f"{VERSIONS}::test_a_gateway_that_does_not_serve_closes_with_1013",
    ),
    _row(
        "1013",
        "gateway restart in progress",
        "gateway-restarting",
        "connect while it stops; `retryAfterMs` 1000",
        f"{HANDSHAKE}::test_a_gateway_that_does_not_serve_says_when_to_come_back",
        f"{VERSIONS}::test_a_gateway_that_does_not_serve_closes_with_1013",
    ),
    _row(
        "4001",
        "client invalidated: …",
        "",
        "the device was removed, or its token rotated or revoked",
        f"{PAIRED}::test_what_is_taken_away_ends_the_open_connections_within_a_second",
    ),
    _row(
        "1013",
        "identity cannot be checked now",
        "identity_keys_unavailable, identity_authenticator_failed",
        "what the upgrade carries cannot be checked now; `retryAfterMs` 5000",
        f"{IDENTITIES}::test_what_cannot_be_checked_now_is_to_be_tried_again",
    ),
    _row(
        "4001",
        "client invalidated: identity-expired",
        "",
        "the proof of identity that the connection came in with has ended",
        "tests/plugins/jwt_identity/test_live.py::test_the_connection_ends_with_the_proof",
    ),
    _row(
        "HTTP 403",
        "",
        "CONTROL_UI_ORIGIN_NOT_ALLOWED",
        "the upgrade comes from a page that is not allowed",
        f"{SERVER}::test_a_foreign_page_is_refused_before_any_frame",
        f"{SERVER}::test_a_rebound_host_name_is_refused",
    ),
    _row(
        "HTTP 503",
        "",
        "",
        "32 connections of one address have not said hello yet",
        f"{SERVER}::test_unauthenticated_sockets_are_bounded_by_address",
        f"{HOSTILE}::test_an_ipv6_network_shares_the_bound_on_half_open_upgrades",
    ),
    _row(
        "cut",
        "",
        "",
        "no pong within 25 seconds of a ping, or the close frame is not answered within one second",
        f"{SERVER}::test_the_server_pings_and_cuts_who_does_not_answer",
    ),
    _row(
        "ignored",
        "",
        "",
        "a frame after hello-ok that is not JSON",
        f"{SESSION}::test_what_is_not_json_is_ignored",
        f"{HOSTILE}::test_what_is_no_json_after_hello_is_ignored",
    ),
    _row(
        "INVALID_REQUEST",
        "invalid request frame: …",
        "",
        "a bad frame after hello-ok; answered under its id, or `invalid`",
        f"{SESSION}::test_a_bad_frame_is_answered_under_its_id",
        f"{VERSIONS}::test_traceparent_and_profile_are_taken_up_to_128_characters",
    ),
    _row("INVALID_REQUEST", "already connected; …", "", "connect after hello-ok", f"{SESSION}::test_connecting_twice_is_refused"),
    _row(
        "INVALID_REQUEST",
        "unknown method: …",
        "",
        "no such method, to admins; to others it looks like a missing scope",
        f"{SESSION}::test_an_unknown_method_looks_like_a_missing_scope_but_to_admins",
    ),
    _row(
        "INVALID_REQUEST",
        "invalid … params: …",
        "",
        "params that do not fit",
        f"{SESSION}::test_bad_params_are_named",
        f"{SESSION}::test_a_method_without_params_takes_none",
    ),
    _row(
        "INVALID_REQUEST",
        "unauthorized role: …",
        "",
        "a method for another role",
        f"{SESSION}::test_more_than_ten_calls_of_another_role_end_the_connection",
    ),
    _row(
        "FORBIDDEN",
        "missing scope: …",
        "MISSING_SCOPE",
        "the connection lacks the method's scope",
        f"{SESSION}::test_a_missing_scope_is_named_with_all_that_would_do",
        f"{SESSION}::test_params_may_ask_for_more",
    ),
    _row(
        "UNAVAILABLE",
        "too many requests in flight …",
        "request-queue-full",
        "256 requests or 50 MiB of them wait for answers; retryable",
        f"{SESSION}::test_requests_in_flight_are_bounded_by_number",
        f"{SESSION}::test_requests_in_flight_are_bounded_by_size",
    ),
    _row(
        "UNAVAILABLE",
        "rate limit exceeded for …",
        "",
        "more than 30 calls of a control-plane method in a minute; retryable",
        f"{SERVER}::test_the_control_plane_limit_says_when_to_retry",
    ),
    _row(
        "UNAVAILABLE",
        "gateway is restarting; retry shortly",
        "gateway-restarting",
        "a call while the gateway stops; `retryAfterMs` 1000",
        f"{SERVER}::test_a_draining_gateway_refuses_new_calls",
    ),
    # No occasion yet, or none at all.
    _row("1008", "too many frames", "", "nothing waits during the handshake: frames behind connect are served, 64 KiB of them at most"),
    _row("1012", "node capabilities changed", "", "an approval reaches the open connection, which is not closed for it"),
    _row("4001", "gateway auth changed", "", "the config is read at a start only"),
    _row("HTTP 401", "", "", "a WebSocket proves itself in connect, never in its upgrade"),
    _row("HTTP 429", "", "", "a WebSocket proves itself in connect, and is told there that it has to wait"),
    _row("UNAVAILABLE", "gateway is suspending", "gateway-suspending", "there is no suspension"),
    _row("UNAVAILABLE", "", "PROTOCOL_MISMATCH with reloadRequired", "the gateway names no build, which locks no Control UI out"),
)
