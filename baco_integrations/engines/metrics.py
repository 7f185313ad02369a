"""What a decoder has done so far, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Metrics:
    """What the engine has done so far.

    Attributes:
        iterations: Steps taken.
        tokens: Tokens decoded, over all rows.
        from_base: How many of them base gave.
        rows: Rows that took part in a step, added up over all iterations.
        prefilled: Prompt tokens read, over both sides.
        reused: Prompt tokens that were known already, over both sides.
        largest_batch: Most rows in one step.
        forwards: Forwards of either model, without those that read prompts.
        fed: Rows that took part in such a forward, added up over all of them.
        drafted: Drafted tokens that the step has decided on.
        accepted: How many of them were right.
        admitted: Rows that were admitted.
        waited_s: Seconds that these rows waited before, added up.
        longest_wait_s: Longest time that a row waited, in seconds.
        busy_s: Seconds that the worker has worked.
        truncated: Tokens that may be others, had an endpoint told of its whole distributions.
        restarts: How often memory ran out and fewer rows went on.
    """

    iterations: int = 0
    tokens: int = 0
    from_base: int = 0
    rows: int = 0
    prefilled: int = 0
    reused: int = 0
    largest_batch: int = 0
    forwards: int = 0
    fed: int = 0
    drafted: int = 0
    accepted: int = 0
    admitted: int = 0
    waited_s: float = 0.0
    longest_wait_s: float = 0.0
    busy_s: float = 0.0
    truncated: int = 0
    restarts: int = 0

    def admit(self, waited_s: float) -> None:
        """Count a row that is admitted after so many seconds."""
        self.admitted += 1
        self.waited_s += waited_s
        self.longest_wait_s = max(self.longest_wait_s, waited_s)

    def take_step(self, rows: int) -> None:
        """Count a step of so many rows."""
        self.iterations += 1
        self.rows += rows
        self.largest_batch = max(self.largest_batch, rows)

    @property
    def rows_per_iteration(self) -> float:
        """Mean number of rows per iteration."""
        return self.rows / max(self.iterations, 1)

    @property
    def tokens_per_second(self) -> float:
        """Tokens decoded in a second of work, over all rows."""
        return self.tokens / self.busy_s if self.busy_s else 0.0

    @property
    def base_share(self) -> float:
        """Share of the tokens that base gave."""
        return self.from_base / max(self.tokens, 1)

    @property
    def mean_wait_s(self) -> float:
        """Mean seconds that a row waited before it was admitted."""
        return self.waited_s / max(self.admitted, 1)
