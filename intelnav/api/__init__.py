"""The node's HTTP surface: control, status and the OpenAI-compatible completions."""
