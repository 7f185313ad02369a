"""A router of your own: base speaks where the two models disagree about the next token."""

import torch

from baco_integrations import Decoder, ModelPair


class Disagreement:
    """Base speaks where aligned gives base's favourite token less probability than gamma cubed.

    Cubed, because an aligned model that disagrees does so firmly: the probabilities are small.
    """

    def route(self, inputs):
        """Return True where the base model is to speak, of shape (rows,)."""
        aligned = inputs.aligned_logits.softmax(-1)
        support = aligned.gather(-1, inputs.top[:, None])[:, 0]
        return support.to(torch.float64) < inputs.gamma**3


with Decoder.shared(ModelPair.tiny()) as decoder:
    for gamma in (0.1, 0.15, 0.6):
        answers = decoder.generate(
            "Name a dish to cook.", router=Disagreement(), gamma=gamma, temperature=0.5, n=4, seed=2
        )
        share = sum(answer.base_share for answer in answers) / len(answers)
        print(f"gamma {gamma}: {share:.0%} of the tokens from base")
        for answer in answers:
            print("  ", answer.text)
