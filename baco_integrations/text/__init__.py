"""Text and tokens: vocabularies, prompts, templates, grammars."""
