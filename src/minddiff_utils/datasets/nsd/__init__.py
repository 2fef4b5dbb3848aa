"""The Natural Scenes Dataset's files."""
