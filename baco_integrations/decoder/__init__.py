"""The decoder that everything shares: conversations in, text with provenance out."""

from .decoder import Decoder, DecoderSettings

__all__ = ["Decoder", "DecoderSettings"]
