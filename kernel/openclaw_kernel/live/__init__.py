"""Taking a configuration live: what joins files, reload engine, plugin host, the kernel's own settings and generations."""
