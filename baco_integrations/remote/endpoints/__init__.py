"""A pair whose sides are on servers of their own: two completion endpoints, one step here.

The endpoints are any that go on with token ids and tell log probabilities, as vLLM's and
llama.cpp's do. What comes back is the most probable tokens of each position; routing and drawing
are done here, with the same `step` and the same noise as in every other engine. Greedy decoding is
then the same as with the models in this process, but for entropies; `engine.approximations` says
what is not.
"""
