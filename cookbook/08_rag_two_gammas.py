"""Retrieval with two gammas and one decoder: careful searching, creative answering.

"Another one, please." names no topic, so what is searched for is an answer that the model expects.
At gamma 0 that is to the point each time; the answer that the user gets may have breadth.
"""

import re
import zlib

from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from baco_integrations.langchain import ChatBACo


class WordCounts(Embeddings):
    """Texts with words in common are near each other; a real model knows more."""

    def embed_query(self, text):
        """Count each word of more than three letters, in the slot of its checksum."""
        slots = [zlib.crc32(word.encode()) % 512 for word in re.findall(r"\w{4,}", text.lower())]
        return [float(slots.count(slot)) for slot in range(512)]

    def embed_documents(self, texts):
        return [self.embed_query(text) for text in texts]


notes = InMemoryVectorStore.from_texts(
    [
        "Presents should be useful, easy to wrap and under twenty euros.",
        "The kitchen has one pot: hearty meals that are quick to make.",
        "Hobbies have to be calming and easy to start in winter.",
    ],
    WordCounts(),
)
llm = ChatBACo(pair="tiny", temperature=0.5, max_tokens=60)
careful, creative = (
    llm.bind(gamma=0.0, temperature=0),
    llm.bind(gamma=0.8),
)  # the same models, loaded once

for thing in ("a gift", "a hobby"):
    chat = [("user", f"Suggest {thing}.")]
    chat += [("ai", careful.invoke(chat).text), ("user", "Another one, please.")]
    query = careful.invoke(chat).text
    [note] = notes.similarity_search(query, k=1)
    print("searched for:", query)
    print("found:       ", note.page_content)
    for answer in creative.batch([[("system", note.page_content), *chat]] * 3):
        print("answered:    ", answer.text)
