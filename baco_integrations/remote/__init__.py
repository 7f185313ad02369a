"""Decoding on another machine: what adapters ask of a decoder, asked of a server.

Everything that goes over the network runs on one event loop in a thread of its own, whichever
thread or event loop asks; streams are those of `decoder.stream`.
"""
