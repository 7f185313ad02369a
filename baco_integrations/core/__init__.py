"""The words of the domain: parameters, routers, traces and errors. Knows neither torch nor text models."""
