"""Claude models over the Anthropic Messages API."""
