"""Claude through the command-line agent `claude`, with its own login, tools and conversations."""
