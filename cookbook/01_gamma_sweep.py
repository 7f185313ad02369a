"""One question, one seed per gamma: what the knob does.

Each answer's words that came from the base model are in brackets; the tiny world's judge says which
places are named in a good answer, and counts each once. The tiny pair is either certain or not, so
between 0.4 and 0.95 little changes; larger pairs use the whole range.
"""

from itertools import groupby

from baco_integrations import Decoder, ModelPair
from baco_integrations.tiny.oracle import judge
from baco_integrations.tiny.requests import recognised

QUESTION = [{"role": "user", "content": "Name a place to visit."}]
request = recognised(QUESTION)

with Decoder.shared(ModelPair.tiny()) as decoder:
    for gamma in (0.0, 0.15, 0.3, 1.0):
        answers = decoder.generate(QUESTION, gamma=gamma, temperature=0.5, n=10, seed=3)
        verdicts = [judge(request, answer.text) for answer in answers]
        places = {verdict.content for verdict in verdicts if verdict.valid}
        print(f"gamma {gamma}: {len(places)} different places in 10 answers")
        for answer in answers[:3]:
            spans = [
                (source, "".join(step.text for step in steps))
                for source, steps in groupby(answer.steps, key=lambda step: step.source)
            ]
            told = "".join(f"[{text}]" if source == "base" else text for source, text in spans)
            print(f"  {answer.base_share:4.0%} base  {told}")
