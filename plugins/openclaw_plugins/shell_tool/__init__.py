"""The tool `shell`: one command of the agent, in its workspace, under a deadline."""
