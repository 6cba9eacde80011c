"""The agents: workspaces, prompt, history and the loop of model and tools."""
