"""Models behind the OpenAI chat completions API: OpenAI, OpenRouter, Ollama, vLLM, LM Studio and their like."""
