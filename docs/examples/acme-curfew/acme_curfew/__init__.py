"""A policy that starts no turn at night."""
