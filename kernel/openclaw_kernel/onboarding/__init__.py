"""From an empty state folder to a first answer: what is asked, and what the answers make of `openclaw.yaml`."""
