"""Questions to an OpenAI-compatible endpoint: settings, client, strict answers."""
