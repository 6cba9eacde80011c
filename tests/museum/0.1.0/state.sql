BEGIN TRANSACTION;
CREATE TABLE conversation_attachments (
        owner TEXT NOT NULL,
        owner_id INTEGER NOT NULL,
        position INTEGER NOT NULL,
        kind TEXT NOT NULL,
        mime_type TEXT NOT NULL,
        file_name TEXT NOT NULL,
        content BLOB NOT NULL,
        PRIMARY KEY (owner, owner_id, position)
    );
CREATE TABLE conversation_attempts (
        outbox INTEGER NOT NULL,
        number INTEGER NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER,
        outcome TEXT,
        error TEXT,
        retry_after_ms INTEGER,
        PRIMARY KEY (outbox, number)
    ) WITHOUT ROWID
    ;
CREATE TABLE conversation_hints (
        channel TEXT NOT NULL,
        account_id TEXT NOT NULL,
        sender_id TEXT NOT NULL,
        hinted_ms INTEGER NOT NULL,
        PRIMARY KEY (channel, account_id, sender_id)
    ) WITHOUT ROWID
    ;
CREATE TABLE conversation_inbound (
        id INTEGER PRIMARY KEY,
        channel TEXT NOT NULL,
        account_id TEXT NOT NULL,
        message_id TEXT NOT NULL,
        received_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        state TEXT NOT NULL,
        reason TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,
        agent_id TEXT,
        session_key TEXT,
        route_reason TEXT,
        run_id TEXT,
        body TEXT NOT NULL,
        request_hash TEXT,
        reply TEXT, stop_ms INTEGER, accepted_ms INTEGER, queued_ms INTEGER, begun_ms INTEGER, ended_ms INTEGER, admission TEXT, admission_reason TEXT, superseded_by TEXT, forgotten_ms INTEGER,
        UNIQUE (channel, account_id, message_id)
    );
INSERT INTO "conversation_inbound" VALUES(1,'webchat','default','token:cli-d3cfa4e9b7baebc3b2e5a407',1795797049821,1795797049832,'answered',NULL,1,'main','agent:main:main',NULL,'cli-d3cfa4e9b7baebc3b2e5a407','{"target":{"channel":"webchat","accountId":"default","peerKind":"direct","peerId":"token","threadId":null},"senderId":"token","senderName":"openclaw-kernel","text":"milk, please","replyToId":null,"timestampMs":1795797049821,"mentioned":true,"extra":{},"options":{"model":null,"thinking":null,"timeoutSeconds":null,"extraSystemPrompt":null,"channel":"webchat","deliverTo":null,"replyToId":null}}','bd80fb522f9e00127a0a7728288ce62748573542d86ac760ae0b5266ee40b812',NULL,NULL,1795797049821,NULL,1795797049821,1795797049832,'allow','a client of the gateway, by its scope',NULL,NULL);
INSERT INTO "conversation_inbound" VALUES(2,'webchat','default','token:cli-07adf75ee65b688cd43545b9',1795797050096,1795797050104,'answered',NULL,1,'main','agent:main:main',NULL,'cli-07adf75ee65b688cd43545b9','{"target":{"channel":"webchat","accountId":"default","peerKind":"direct","peerId":"token","threadId":null},"senderId":"token","senderName":"openclaw-kernel","text":"and bread","replyToId":null,"timestampMs":1795797050096,"mentioned":true,"extra":{},"options":{"model":null,"thinking":null,"timeoutSeconds":null,"extraSystemPrompt":null,"channel":"webchat","deliverTo":null,"replyToId":null}}','f74ea0a0d306d7b404c168879d017cdf9ea63a638e0359e9f2e1748b61af32ec',NULL,NULL,1795797050096,NULL,1795797050096,1795797050104,'allow','a client of the gateway, by its scope',NULL,NULL);
CREATE TABLE conversation_interventions (
        id INTEGER PRIMARY KEY,
        owner TEXT NOT NULL,
        owner_id INTEGER NOT NULL,
        at_ms INTEGER NOT NULL,
        action TEXT NOT NULL,
        by TEXT NOT NULL,
        state TEXT NOT NULL,
        reason TEXT
    );
CREATE TABLE conversation_messages (
        id INTEGER PRIMARY KEY,
        session_id TEXT NOT NULL,
        seq INTEGER NOT NULL,
        role TEXT NOT NULL,
        run_id TEXT,
        created_ms INTEGER NOT NULL,
        size INTEGER NOT NULL,
        body TEXT NOT NULL,
        UNIQUE (session_id, seq)
    );
INSERT INTO "conversation_messages" VALUES(1,'304869a3-884b-4184-bdac-2b4fa8a7493e',1,'user','cli-d3cfa4e9b7baebc3b2e5a407',1795797049821,139,'{"idempotencyKey":"cli-d3cfa4e9b7baebc3b2e5a407","role":"user","content":[{"type":"text","text":"milk, please"}],"timestamp":1795797049821}');
INSERT INTO "conversation_messages" VALUES(2,'304869a3-884b-4184-bdac-2b4fa8a7493e',2,'assistant','cli-d3cfa4e9b7baebc3b2e5a407',1795797049832,246,'{"role":"assistant","content":[{"type":"text","text":"milk, please"}],"timestamp":1795797049832,"provider":"echo","model":"echo","stopReason":"stop","usage":{"input":2,"output":2,"cacheRead":0,"cacheWrite":0,"totalTokens":4,"cost":{"total":0.0}}}');
INSERT INTO "conversation_messages" VALUES(3,'304869a3-884b-4184-bdac-2b4fa8a7493e',3,'user','cli-07adf75ee65b688cd43545b9',1795797050096,136,'{"idempotencyKey":"cli-07adf75ee65b688cd43545b9","role":"user","content":[{"type":"text","text":"and bread"}],"timestamp":1795797050096}');
INSERT INTO "conversation_messages" VALUES(4,'304869a3-884b-4184-bdac-2b4fa8a7493e',4,'assistant','cli-07adf75ee65b688cd43545b9',1795797050104,243,'{"role":"assistant","content":[{"type":"text","text":"and bread"}],"timestamp":1795797050104,"provider":"echo","model":"echo","stopReason":"stop","usage":{"input":6,"output":2,"cacheRead":0,"cacheWrite":0,"totalTokens":8,"cost":{"total":0.0}}}');
CREATE TABLE conversation_outbox (
        id INTEGER PRIMARY KEY,
        outbox_id TEXT NOT NULL UNIQUE,
        channel TEXT NOT NULL,
        account_id TEXT NOT NULL,
        peer_kind TEXT NOT NULL,
        peer_id TEXT NOT NULL,
        thread_id TEXT,
        text TEXT NOT NULL,
        reply_to_id TEXT,
        run_id TEXT,
        inbound_id INTEGER,
        silent INTEGER NOT NULL DEFAULT 0,
        attachments INTEGER NOT NULL DEFAULT 0,
        state TEXT NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0,
        next_attempt_ms INTEGER NOT NULL,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        receipt TEXT,
        error TEXT,
        request_key TEXT UNIQUE,
        request_hash TEXT
    , excused INTEGER NOT NULL DEFAULT 0, retried_ms INTEGER, place INTEGER, forgotten_ms INTEGER);
CREATE TABLE conversation_runs (
        id INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        session_key TEXT NOT NULL,
        session_id TEXT NOT NULL,
        agent_id TEXT NOT NULL,
        inbound_id INTEGER,
        state TEXT NOT NULL,
        started_ms INTEGER,
        ended_ms INTEGER,
        text TEXT,
        error TEXT,
        error_kind TEXT,
        stop_reason TEXT,
        model TEXT,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        cache_read_tokens INTEGER NOT NULL DEFAULT 0,
        cache_write_tokens INTEGER NOT NULL DEFAULT 0,
        cost_usd REAL
    , resumes INTEGER NOT NULL DEFAULT 0);
INSERT INTO "conversation_runs" VALUES(1,'cli-d3cfa4e9b7baebc3b2e5a407','agent:main:main','304869a3-884b-4184-bdac-2b4fa8a7493e','main',1,'ok',1795797049821,1795797049832,'milk, please',NULL,NULL,'stop','echo/echo',2,2,0,0,0.0,0);
INSERT INTO "conversation_runs" VALUES(2,'cli-07adf75ee65b688cd43545b9','agent:main:main','304869a3-884b-4184-bdac-2b4fa8a7493e','main',2,'ok',1795797050096,1795797050104,'and bread',NULL,NULL,'stop','echo/echo',6,2,0,0,0.0,0);
CREATE TABLE conversation_sessions (
        key TEXT PRIMARY KEY,
        agent_id TEXT NOT NULL,
        session_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        chat_type TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        updated_ms INTEGER NOT NULL,
        interaction_ms INTEGER,
        label TEXT,
        display_name TEXT,
        title TEXT,
        preview TEXT,
        channel TEXT,
        account_id TEXT,
        peer_kind TEXT,
        peer_id TEXT,
        thread_id TEXT,
        archived INTEGER NOT NULL DEFAULT 0,
        pinned INTEGER NOT NULL DEFAULT 0,
        spawned_by TEXT,
        model TEXT,
        thinking_level TEXT,
        settings TEXT NOT NULL DEFAULT '{}',
        status TEXT,
        last_run_id TEXT,
        last_run_error TEXT,
        run_model TEXT,
        input_tokens INTEGER NOT NULL DEFAULT 0,
        output_tokens INTEGER NOT NULL DEFAULT 0,
        total_tokens INTEGER NOT NULL DEFAULT 0,
        cost_usd REAL
    );
INSERT INTO "conversation_sessions" VALUES('agent:main:main','main','304869a3-884b-4184-bdac-2b4fa8a7493e','direct','direct',1795797049821,1795797050104,1795797050096,NULL,NULL,'milk, please','and bread','webchat',NULL,NULL,NULL,NULL,0,0,NULL,NULL,NULL,'{}','done','cli-07adf75ee65b688cd43545b9',NULL,'echo/echo',6,2,8,0.0);
CREATE TABLE conversation_steps (
        id INTEGER PRIMARY KEY,
        run_id TEXT NOT NULL,
        session_key TEXT NOT NULL,
        agent_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        name TEXT NOT NULL,
        started_ms INTEGER NOT NULL,
        ended_ms INTEGER NOT NULL,
        input_tokens INTEGER NOT NULL,
        output_tokens INTEGER NOT NULL,
        cache_read_tokens INTEGER NOT NULL,
        cache_write_tokens INTEGER NOT NULL,
        cost_usd REAL,
        error TEXT,
        retry_class TEXT
    , run INTEGER, number INTEGER, call_id TEXT, state TEXT, attempt INTEGER NOT NULL DEFAULT 1, digest TEXT);
INSERT INTO "conversation_steps" VALUES(1,'cli-d3cfa4e9b7baebc3b2e5a407','agent:main:main','main','model','echo/echo',1795797049831,1795797049832,2,2,0,0,0.0,NULL,'pure',1,1,NULL,'done',1,NULL);
INSERT INTO "conversation_steps" VALUES(2,'cli-07adf75ee65b688cd43545b9','agent:main:main','main','model','echo/echo',1795797050104,1795797050104,6,2,0,0,0.0,NULL,'pure',2,1,NULL,'done',1,NULL);
CREATE TABLE conversation_swept (
        id INTEGER PRIMARY KEY,
        kind TEXT NOT NULL,
        channel TEXT NOT NULL,
        name TEXT NOT NULL,
        run_id TEXT,
        state TEXT NOT NULL,
        ended_ms INTEGER NOT NULL
    );
CREATE TABLE conversation_transcripts (
        session_id TEXT PRIMARY KEY,
        session_key TEXT NOT NULL,
        agent_id TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        ended_ms INTEGER
    );
INSERT INTO "conversation_transcripts" VALUES('304869a3-884b-4184-bdac-2b4fa8a7493e','agent:main:main','main',1795797049821,NULL);
CREATE TABLE kernel_audit (sequence INTEGER PRIMARY KEY, time_ms INTEGER NOT NULL, action TEXT NOT NULL, outcome TEXT NOT NULL, actor TEXT NOT NULL, surface TEXT NOT NULL, address TEXT, subject TEXT, reason TEXT, before_digest TEXT, after_digest TEXT, trace_id TEXT, details TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL);
INSERT INTO "kernel_audit" VALUES(1,1795797048607,'config.loaded','done','gateway','start',NULL,'openclaw.yaml',NULL,NULL,'ab69ca720a5d23291bc08ef7e70c7dcbde31007d72fb0bf310890b8b52b99373',NULL,'{}','0000000000000000000000000000000000000000000000000000000000000000','67819ed279858285bb78f4b2782b9cd8484f8e36026da4b8e67b93e21d9c6abf');
INSERT INTO "kernel_audit" VALUES(2,1795797048608,'plugins.changed','done','gateway','start',NULL,'plugins',NULL,NULL,'739923060a95383c057aef1a8e6be3bb5b69248e18d503d829c74705e6d19c49',NULL,'{"added":{"admission":"openclaw-kernel 0.1.0","agents":"openclaw-kernel 0.1.0","anthropic":"openclaw-kernel 0.1.0","audit":"openclaw-kernel 0.1.0","claude-cli":"openclaw-kernel 0.1.0","control":"openclaw-kernel 0.1.0","control-ui":"openclaw-kernel 0.1.0","conversation":"openclaw-kernel 0.1.0","doctor":"openclaw-kernel 0.1.0","echo":"openclaw-kernel 0.1.0","events":"openclaw-kernel 0.1.0","jwt-identity":"openclaw-kernel 0.1.0","local":"openclaw-kernel 0.1.0","openai":"openclaw-kernel 0.1.0","pairing":"openclaw-kernel 0.1.0","routing":"openclaw-kernel 0.1.0","security":"openclaw-kernel 0.1.0","shell-tool":"openclaw-kernel 0.1.0","telegram":"openclaw-kernel 0.1.0","web-tools":"openclaw-kernel 0.1.0","webchat":"openclaw-kernel 0.1.0"},"changed":{},"removed":{}}','67819ed279858285bb78f4b2782b9cd8484f8e36026da4b8e67b93e21d9c6abf','c01a893cd184b9337c5a70e6ba11396639123d3eaa6e5d021140c81302069a1b');
INSERT INTO "kernel_audit" VALUES(3,1795797048622,'gateway.started','done','gateway','start',NULL,'gateway',NULL,NULL,NULL,NULL,'{"bootId":"99f9695f-7829-475e-a219-518b9adfc04a","version":"0.1.0"}','c01a893cd184b9337c5a70e6ba11396639123d3eaa6e5d021140c81302069a1b','f1d5faf1d9550090ffafb67f50e435332c19654dd26659b6a95cec94151671b5');
INSERT INTO "kernel_audit" VALUES(4,1795797050284,'gateway.stopped','done','gateway','start',NULL,'gateway','service restart',NULL,NULL,NULL,'{"bootId":"99f9695f-7829-475e-a219-518b9adfc04a","version":"0.1.0"}','f1d5faf1d9550090ffafb67f50e435332c19654dd26659b6a95cec94151671b5','8d32425b8f0ffe10031cd130d36c88a28315ae35e9a5fbb9c9d5f81722605381');
CREATE TABLE kernel_event_epochs (id INTEGER PRIMARY KEY AUTOINCREMENT, first INTEGER NOT NULL, name TEXT NOT NULL UNIQUE, gap TEXT, ended INTEGER NOT NULL, wanted_ms INTEGER NOT NULL);
CREATE TABLE kernel_events (position INTEGER PRIMARY KEY AUTOINCREMENT, time_ms INTEGER NOT NULL, event TEXT NOT NULL, topics TEXT, scoped_topic TEXT, payload BLOB NOT NULL, size INTEGER NOT NULL, total INTEGER NOT NULL);
CREATE TABLE kernel_key_value (owner TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (owner, key)) WITHOUT ROWID;
INSERT INTO "kernel_key_value" VALUES('kernel','audit-plugins','{"telegram": "openclaw-kernel 0.1.0", "webchat": "openclaw-kernel 0.1.0", "admission": "openclaw-kernel 0.1.0", "agents": "openclaw-kernel 0.1.0", "audit": "openclaw-kernel 0.1.0", "control": "openclaw-kernel 0.1.0", "control-ui": "openclaw-kernel 0.1.0", "conversation": "openclaw-kernel 0.1.0", "doctor": "openclaw-kernel 0.1.0", "events": "openclaw-kernel 0.1.0", "jwt-identity": "openclaw-kernel 0.1.0", "pairing": "openclaw-kernel 0.1.0", "routing": "openclaw-kernel 0.1.0", "security": "openclaw-kernel 0.1.0", "shell-tool": "openclaw-kernel 0.1.0", "web-tools": "openclaw-kernel 0.1.0", "anthropic": "openclaw-kernel 0.1.0", "claude-cli": "openclaw-kernel 0.1.0", "echo": "openclaw-kernel 0.1.0", "local": "openclaw-kernel 0.1.0", "openai": "openclaw-kernel 0.1.0"}');
CREATE TABLE kernel_migrations (owner TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, applied_ms INTEGER NOT NULL, PRIMARY KEY (owner, number)) WITHOUT ROWID;
INSERT INTO "kernel_migrations" VALUES('conversation',1,'create the tables of conversations',1795797048529);
INSERT INTO "kernel_migrations" VALUES('conversation',2,'find the hints of the last hour',1795797048530);
INSERT INTO "kernel_migrations" VALUES('conversation',3,'keep the journal of a turn',1795797048533);
INSERT INTO "kernel_migrations" VALUES('conversation',4,'keep what is asked of a message''s way',1795797048545);
INSERT INTO "kernel_migrations" VALUES('kernel',1,'create kernel_key_value',1795797048518);
INSERT INTO "kernel_migrations" VALUES('kernel',2,'create kernel_requests',1795797048523);
INSERT INTO "kernel_migrations" VALUES('kernel',3,'create kernel_sentinels',1795797048526);
INSERT INTO "kernel_migrations" VALUES('kernel',4,'create kernel_events',1795797048527);
INSERT INTO "kernel_migrations" VALUES('kernel',5,'create kernel_audit',1795797048527);
INSERT INTO "kernel_migrations" VALUES('pairing',1,'create devices, roles, tokens, requests and removed devices',1795797048551);
INSERT INTO "kernel_migrations" VALUES('pairing',2,'add labels, rotated tokens and generations',1795797048553);
INSERT INTO "kernel_migrations" VALUES('pairing',3,'create setup codes',1795797048553);
INSERT INTO "kernel_migrations" VALUES('pairing',4,'create nodes',1795797048554);
CREATE TABLE kernel_requests (id INTEGER PRIMARY KEY, principal TEXT NOT NULL, method TEXT NOT NULL, key TEXT NOT NULL, digest TEXT NOT NULL, state TEXT NOT NULL, record TEXT, payload BLOB, error BLOB, created_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, UNIQUE (principal, method, key));
INSERT INTO "kernel_requests" VALUES(1,'token','chat.send','cli-d3cfa4e9b7baebc3b2e5a407','bd80fb522f9e00127a0a7728288ce62748573542d86ac760ae0b5266ee40b812','done',NULL,X'7B2272756E4964223A22636C692D643363666134653962376261656263336232653561343037222C22737461747573223A2273746172746564222C226D657373616765536571223A317D',NULL,1795797049822,1796401849822);
INSERT INTO "kernel_requests" VALUES(2,'token','chat.send','cli-07adf75ee65b688cd43545b9','f74ea0a0d306d7b404c168879d017cdf9ea63a638e0359e9f2e1748b61af32ec','done',NULL,X'7B2272756E4964223A22636C692D303761646637356565363562363838636434333534356239222C22737461747573223A2273746172746564222C226D657373616765536571223A337D',NULL,1795797050097,1796401850097);
CREATE TABLE kernel_sentinels (id INTEGER PRIMARY KEY AUTOINCREMENT, boot_id TEXT NOT NULL, body TEXT NOT NULL);
CREATE TABLE pairing_devices (
        device_id TEXT PRIMARY KEY,
        public_key TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        approved_ms INTEGER NOT NULL,
        approved_by TEXT NOT NULL,
        
        display_name TEXT,
        platform TEXT NOT NULL,
        device_family TEXT,
        client_id TEXT NOT NULL,
        client_mode TEXT NOT NULL,
        address TEXT NOT NULL

    , label TEXT, generation INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID
    ;
CREATE TABLE pairing_generation (id INTEGER PRIMARY KEY CHECK (id = 1), number INTEGER NOT NULL, withdrawn INTEGER NOT NULL);
INSERT INTO "pairing_generation" VALUES(1,0,0);
CREATE TABLE pairing_node_requests (
        request_id TEXT PRIMARY KEY,
        node_id TEXT NOT NULL UNIQUE,
        caps TEXT NOT NULL,
        commands TEXT NOT NULL,
        permissions TEXT NOT NULL,
        version TEXT,
        model TEXT,
        created_ms INTEGER NOT NULL,
        refreshed_ms INTEGER NOT NULL
    ) WITHOUT ROWID
    ;
CREATE TABLE pairing_nodes (
        node_id TEXT PRIMARY KEY,
        caps TEXT NOT NULL,
        commands TEXT NOT NULL,
        permissions TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        approved_ms INTEGER NOT NULL,
        generation INTEGER NOT NULL,
        version TEXT,
        model TEXT
    ) WITHOUT ROWID
    ;
CREATE TABLE pairing_removed (device_id TEXT PRIMARY KEY, removed_ms INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pairing_requests (
        request_id TEXT PRIMARY KEY,
        device_id TEXT NOT NULL UNIQUE,
        public_key TEXT NOT NULL,
        role TEXT NOT NULL,
        scopes TEXT NOT NULL,
        reason TEXT NOT NULL,
        network TEXT NOT NULL,
        created_ms INTEGER NOT NULL,
        refreshed_ms INTEGER NOT NULL,
        
        display_name TEXT,
        platform TEXT NOT NULL,
        device_family TEXT,
        client_id TEXT NOT NULL,
        client_mode TEXT NOT NULL,
        address TEXT NOT NULL

    ) WITHOUT ROWID
    ;
CREATE TABLE pairing_roles (
        device_id TEXT NOT NULL,
        role TEXT NOT NULL,
        scopes TEXT NOT NULL,
        approved_ms INTEGER NOT NULL,
        revoked_ms INTEGER, generation INTEGER NOT NULL DEFAULT 0,
        PRIMARY KEY (device_id, role)
    ) WITHOUT ROWID
    ;
CREATE TABLE pairing_setups (
        setup_id TEXT PRIMARY KEY,
        digest BLOB NOT NULL UNIQUE,
        access TEXT NOT NULL,
        minted_by TEXT NOT NULL,
        expires_ms INTEGER NOT NULL,
        used_ms INTEGER,
        device_id TEXT,
        device_name TEXT,
        completed_ms INTEGER
    ) WITHOUT ROWID
    ;
CREATE TABLE pairing_tokens (
        digest BLOB PRIMARY KEY,
        device_id TEXT NOT NULL,
        role TEXT NOT NULL,
        scopes TEXT,
        issued_ms INTEGER NOT NULL,
        used INTEGER NOT NULL
    , generation INTEGER NOT NULL DEFAULT 0, rotated INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID
    ;
CREATE INDEX kernel_audit_actions ON kernel_audit (action, sequence);
CREATE TRIGGER kernel_audit_no_update BEFORE UPDATE ON kernel_audit BEGIN SELECT RAISE(ABORT, 'kernel_audit is append-only: no row is changed or deleted'); END;
CREATE TRIGGER kernel_audit_no_delete BEFORE DELETE ON kernel_audit BEGIN SELECT RAISE(ABORT, 'kernel_audit is append-only: no row is changed or deleted'); END;
CREATE TRIGGER kernel_audit_in_order BEFORE INSERT ON kernel_audit WHEN NEW.sequence IS NOT (SELECT coalesce(max(sequence), 0) + 1 FROM kernel_audit) OR NEW.previous IS NOT coalesce((SELECT hash FROM kernel_audit ORDER BY sequence DESC LIMIT 1), printf('%064d', 0)) BEGIN SELECT RAISE(ABORT, 'kernel_audit is append-only: a row follows the newest one'); END;
CREATE INDEX conversation_inbound_open ON conversation_inbound (id)
    WHERE state IN ('accepted', 'routed', 'queued', 'running')
    ;
CREATE INDEX conversation_outbox_open ON conversation_outbox (id) WHERE state IN ('prepared', 'sending');
CREATE INDEX conversation_sessions_newest
    ON conversation_sessions (archived, updated_ms DESC, kind)
    ;
CREATE INDEX conversation_sessions_agent
    ON conversation_sessions (agent_id, archived, updated_ms DESC, kind)
    ;
CREATE INDEX conversation_sessions_interaction
    ON conversation_sessions (archived, interaction_ms DESC, kind)
    ;
CREATE INDEX conversation_sessions_label ON conversation_sessions (label) WHERE label IS NOT NULL;
CREATE INDEX conversation_sessions_id ON conversation_sessions (session_id);
CREATE INDEX conversation_transcripts_key ON conversation_transcripts (session_key);
CREATE INDEX conversation_runs_run ON conversation_runs (run_id);
CREATE INDEX conversation_runs_inbound ON conversation_runs (inbound_id);
CREATE INDEX conversation_steps_time ON conversation_steps (kind, started_ms);
CREATE INDEX conversation_hints_time ON conversation_hints (channel, account_id, hinted_ms);
CREATE UNIQUE INDEX conversation_steps_journal ON conversation_steps (run, number) WHERE run IS NOT NULL;
CREATE INDEX conversation_interventions_owner ON conversation_interventions (owner, owner_id);
CREATE INDEX conversation_swept_name ON conversation_swept (name);
CREATE INDEX conversation_swept_run ON conversation_swept (run_id);
CREATE INDEX conversation_inbound_message ON conversation_inbound (message_id);
CREATE INDEX conversation_inbound_run ON conversation_inbound (run_id);
CREATE INDEX conversation_inbound_dead ON conversation_inbound (updated_ms) WHERE state = 'dead_lettered' AND forgotten_ms IS NULL;
CREATE INDEX conversation_outbox_run ON conversation_outbox (run_id);
CREATE INDEX conversation_outbox_inbound ON conversation_outbox (inbound_id);
CREATE INDEX conversation_outbox_dead ON conversation_outbox (updated_ms)
    WHERE state IN ('unknown_after_send', 'failed', 'dead_lettered') AND forgotten_ms IS NULL
    ;
CREATE INDEX conversation_steps_run ON conversation_steps (run_id);
CREATE INDEX pairing_tokens_device ON pairing_tokens (device_id);
DELETE FROM "sqlite_sequence";
COMMIT;
