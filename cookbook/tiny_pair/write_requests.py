"""Write the requests that the embedded pair is evaluated with.

    python -m cookbook.tiny_pair.write_requests

writes baco_integrations/tiny/requests.jsonl. Requests do not depend on the trained weights.
"""

import json
from dataclasses import asdict

from baco_integrations.tiny.requests import FILE, SPLITS
from cookbook.tiny_pair.world import requests


def lines() -> list[str]:
    """One line of JSON for each request of the splits that the package knows."""
    return [
        json.dumps(asdict(request), ensure_ascii=False)
        for split in SPLITS
        for request in requests(split)
    ]


if __name__ == "__main__":
    FILE.write_text("".join(f"{line}\n" for line in lines()), "utf-8")
