"""Who may start a turn: the access policy of each channel's config section."""
