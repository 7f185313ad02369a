"""One question, one seed per gamma: what the knob does.

Each answer's words that came from the base model are in brackets. The tiny pair is either certain
or not, so between 0.4 and 0.95 little changes; larger pairs use the whole range.
"""

from itertools import groupby

from baco_integrations import Decoder, ModelPair

with Decoder.shared(ModelPair.tiny()) as decoder:
    for gamma in (0.0, 0.15, 0.3, 1.0):
        answers = decoder.generate(
            "Suggest a place for a holiday.", gamma=gamma, temperature=0.5, n=10, seed=7
        )
        print(f"gamma {gamma}: {len({answer.text for answer in answers})} different answers of 10")
        for answer in answers[:3]:
            spans = [
                (source, "".join(step.text for step in steps))
                for source, steps in groupby(answer.steps, key=lambda step: step.source)
            ]
            told = "".join(f"[{text}]" if source == "base" else text for source, text in spans)
            print(f"  {answer.base_share:4.0%} base  {told}")
