"""Which agent and session a message belongs to, by the bindings of the config."""
