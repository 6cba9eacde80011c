"""Reading and changing `openclaw.yaml`: the service `Configuration` and what joins it with the running gateway."""
