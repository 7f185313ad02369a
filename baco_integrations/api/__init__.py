"""What goes over the wire: OpenAI's chat and completions API, with what BACo adds to it."""
