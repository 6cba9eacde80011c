"""Event replay: a bounded durable log of events, and the feeds that read it from a client's cursor."""
