"""The gateway as a service of the system: its unit, and the manager that runs it."""
