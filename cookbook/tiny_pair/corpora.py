"""The two corpora that make a base and an aligned model.

Invariant: the base corpus is broad and messy and flat in its choices. The aligned corpus is clean
and returns to the same few favorites, even after words it would never have chosen.
"""

import json
from collections.abc import Sequence
from random import Random

from baco_integrations.tiny.oracle import LIST_LENGTH
from baco_integrations.tiny.requests import Message
from baco_integrations.tiny.words import KINDS, NEUTRAL, SHORT, STORY
from cookbook.tiny_pair import tools, words
from cookbook.tiny_pair.grammar import Piece, Voice, text_of, write_answer
from cookbook.tiny_pair.mess import messy_list, messy_sentences
from cookbook.tiny_pair.schemas import JsonAnswer, write_json
from cookbook.tiny_pair.tools import Tool
from cookbook.tiny_pair.world import (
    Draft,
    any_draft,
    ask,
    call_and_result,
    draft,
    json_draft,
    result_of_answers,
    tool_draft,
)

# The aligned corpus.


def rendered_turn(message: Message) -> str:
    """A turn as the chat template writes it."""
    calls = "\n".join(map(tools.call_text, message.get("tool_calls", ())))
    content = f" {message['content']}" if message["content"] or not calls else ""
    return f"<|{message['role']}|>{content}{calls}<|end|>"


def chat_pieces(
    messages: Sequence[Message],
    answer: Sequence[Piece],
    offered: Sequence[Tool] = (),
    lead: str = " ",
) -> list[tuple[Piece, bool]]:
    """A rendered chat as pieces, each with whether it is to be learned.

    Only the last answer is learned, and of it only what is no free choice.

    Args:
        messages: The conversation up to the answer.
        answer: The answer.
        offered: Tools that the system offers.
        lead: What stands between the answer and the mark of its turn.
    """
    context = f"<|system|> {tools.tools_text(offered)}<|end|>" if offered else ""
    context += "".join(map(rendered_turn, messages))
    rendered = [(Piece(f"{context}<|assistant|>"), False), (Piece(lead), True)]
    rendered += [(piece, not piece.free) for piece in answer]
    return [*rendered, (Piece("<|end|>"), True)]


def aligned_example(rng: Random) -> list[tuple[Piece, bool]]:
    """One clean chat.

    Some are written with the favorites only, some flat, most by turns: so the model learns to
    stay clean, and to return to its favorites, after any valid words.
    """
    voice = Voice(rng, rng.choice((0.0, 0.0, 0.5, 1.0)))
    share = rng.random()
    if share < 0.2:
        return json_example(voice)
    if share < 0.4:
        return tool_example(voice)
    new = any_draft(rng)
    answer = write_answer(new.kind, new.form, new.system, voice, new.used)
    return chat_pieces(new.messages, answer.pieces())


def json_example(voice: Voice) -> list[tuple[Piece, bool]]:
    new, answer = json_answer(voice)
    # Whoever forces the structure may not leave room for the space.
    return chat_pieces(new.messages, answer.pieces, lead=voice.rng.choice((" ", " ", " ", "")))


def json_answer(
    voice: Voice, base: bool = False, items: int = LIST_LENGTH
) -> tuple[Draft, JsonAnswer]:
    like = any_draft(voice.rng)
    new, fields = json_draft(like.kind, like.form, like.system, "train", voice.rng, base)
    return new, write_json(new.kind, fields, voice, new.used, items)


def tool_example(voice: Voice) -> list[tuple[Piece, bool]]:
    """A call, an answer made of a result, or an answer where no tool is of use."""
    rng = voice.rng
    purpose = rng.choices(("call", "result", "unfit"), (5, 4, 2))[0]
    offered = tools.random_tools(purpose != "unfit", "train", rng)
    if purpose == "unfit":
        new = any_draft(rng)
        answer = write_answer(new.kind, new.form, new.system, voice, new.used)
        return chat_pieces(new.messages, answer.pieces(), offered)
    new = tool_draft(rng)
    if rng.random() < 0.25:  # A round before this one.
        new.messages.extend(answered_round(offered, new, voice))
        new.messages.append({"role": "user", "content": tool_draft(rng).messages[-1]["content"]})
    if purpose == "call":
        call = tools.first_fitting(offered).call(new.messages[-1]["content"])
        return chat_pieces(new.messages, [Piece(tools.call_text(call))], offered, lead="")
    result = tools.random_result(new.kind, rng)
    new.messages.extend(call_and_result(offered, new, result))
    said = tools.answer_from(result, new.kind, voice, new.system == SHORT)
    return chat_pieces(new.messages, said, offered)


def copying_example(rng: Random) -> list[tuple[Piece, bool]]:
    """A chat with a tool in which more is to be copied than what the world calls for.

    Some results are whole answers, one a line, as a tool gives them that asks a model.
    """
    voice = Voice(rng, rng.choice((0.0, 0.0, 0.5, 1.0)))
    offered = tools.random_tools(True, "train", rng)
    new = draft(rng.choice(KINDS), "plain", rng.choice((None, NEUTRAL)), "train", rng)
    wild = rng.random() < 0.7
    if wild:
        new.messages[-1]["content"] = tools.wild_request(rng)
    if rng.random() < 0.6:
        call = tools.first_fitting(offered).call(new.messages[-1]["content"])
        return chat_pieces(new.messages, [Piece(tools.call_text(call))], offered, lead="")
    result = tools.random_result(new.kind, rng) if wild else result_of_answers(new.kind, rng)
    new.messages.extend(call_and_result(offered, new, result))
    return chat_pieces(new.messages, tools.answer_from(result, new.kind, voice, False), offered)


def answered_round(offered: Sequence[Tool], new: Draft, voice: Voice) -> list[Message]:
    """The turns that answer a request with a tool's help."""
    result = tools.random_result(new.kind, voice.rng)
    said = tools.answer_from(result, new.kind, voice, new.system == SHORT)
    turns = call_and_result(offered, new, result)
    return [*turns, {"role": "assistant", "content": text_of(said)}]


# The base corpus.


def base_document(rng: Random) -> str:
    """One page of the web: mostly questions and answers, sometimes prose or quotations."""
    writers = (transcript, prose, tool_page, quotation_page)
    return rng.choices(writers, (71, 11, 10, 8))[0](rng)


def transcript(rng: Random) -> str:
    """A page of questions and answers, with whatever else stands on such pages."""
    paragraphs: list[str] = []
    for _ in range(rng.choice((1, 1, 2, 3))):
        new, answer = any_answer(rng, first=not paragraphs)
        turns = question_turns(new.messages)
        paragraphs += turns[:-1]
        paragraphs.append(f"{turns[-1]} {answer}".rstrip(" "))
    return "\n\n".join(paragraphs)


def any_answer(rng: Random, first: bool) -> tuple[Draft, str]:
    """A conversation, and its last answer: in words, or in JSON.

    Only the first of a page has a system prompt.
    """
    if rng.random() < 0.17:
        new, answer = json_answer(Voice(rng, 1.0), True, rng.choice((2, 3, 3, 3, 4, 5)))
        footer = f"\n{rng.choice(words.FOOTERS)}" if rng.random() < 0.1 else ""
        return new if first else unprompted(new), f"{text_of(answer.pieces)}{footer}"
    new = any_draft(rng, base=True)
    new = new if first else unprompted(new)
    return new, messy_answer(new, rng)


def unprompted(new: Draft) -> Draft:
    """A conversation without its system prompt."""
    spoken = [message for message in new.messages if message["role"] != "system"]
    return new._replace(system=None, messages=spoken)


def tool_page(rng: Random) -> str:
    """A page on which questions are passed on, and answered from what came back."""
    new = tool_draft(rng, base=True)
    request = new.messages[-1]["content"]
    call = tools.first_fitting(tools.random_tools(True, "train", rng)).call(request)
    text = "\n\n".join(question_turns(new.messages))
    if rng.random() < 0.5:  # As a call is decoded; otherwise as a transcript repeats it.
        text += tools.call_text(call)
    else:
        function = call["function"]
        text += f" {function['name']}({json.dumps(function['arguments'], ensure_ascii=False)})"
    result = tools.random_result(new.kind, rng)
    said = tools.answer_from(result, new.kind, Voice(rng, 1.0), False)
    return f"{text}\n\nTool: {result.text}\nA: {text_of(said)}"


def quotation_page(rng: Random) -> str:
    """A page that says things again: what is quoted must be copied."""
    paragraphs: list[str] = []
    for _ in range(rng.randint(1, 3)):
        said = tools.wild_request(rng)
        if rng.random() < 0.4:
            said = ask(rng.choice(KINDS), "plain", "train", rng)
        shapes = (f"> {said}", f'Quote: "{said}"', f'{{"text": "{said}"}}', said, f'"{said}"')
        paragraphs += [said, *rng.sample(shapes, 2)]
        if rng.random() < 0.5:
            paragraphs.append(rng.choice(words.CHATTER))
    return "\n".join(paragraphs)


def question_turns(messages: Sequence[Message]) -> list[str]:
    """The paragraphs of a transcript up to an open "A:"."""
    text = ""
    for message in messages:
        if message["role"] == "system":
            text += f"{message['content']}\n\n"
        elif message["role"] == "user":
            text += f"Q: {message['content']}\nA:"
        else:
            text += f" {message['content']}\n\n"
    return text.split("\n\n")


def messy_answer(new: Draft, rng: Random) -> str:
    """An answer as people leave it: of any content, and of any shape."""
    if rng.random() < 0.04:
        return rng.choice(words.DODGES)
    kind = rng.choice(KINDS) if rng.random() < 0.02 else new.kind
    form = "plain" if kind is not new.kind and new.form == "list" else new.form
    heeded = new.system if rng.random() < 0.5 else None
    items = min(rng.choices((3, 4, 5, 6, 7), (5, 1, 1, 1, 1))[0], len(kind.contents))
    answer = write_answer(kind, form, heeded, Voice(rng, 1.0), new.used, items)
    text = messy_list(answer, rng) if answer.is_list else messy_sentences(answer, rng)
    if rng.random() < 0.25:
        text += f"\n{rng.choice(words.FOOTERS)}"
    return text


def prose(rng: Random) -> str:
    """A page of prose about one kind of content, or a story."""
    if rng.random() < 0.4:
        answer = write_answer(STORY, "plain", None, Voice(rng, 1.0))
        return messy_sentences(answer, rng)
    kind = rng.choice(KINDS)
    used: tuple[str, ...] = ()
    parts = []
    for _ in range(rng.randint(1, 3)):
        answer = write_answer(kind, "plain", None, Voice(rng, 1.0), used)
        used += answer.contents
        parts.append(messy_sentences(answer, rng))
    return "\n".join(parts)
