"""The client of OpenAI-compatible servers that other built-in plugins ask: `api` holds its public names."""
