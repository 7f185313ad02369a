"""The words of the domain: parameters, routers, traces and errors; no torch."""
