"""`baco chat`: a conversation, with everything about decoding within reach.

Answers go to stdout and all else to stderr, so a script's answers can be piped on.
"""

from __future__ import annotations

import secrets
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import typer

from ..core.errors import BacoError, ParameterError, nearest
from . import options
from .errors import say
from .generate import print_provenance, write

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ..core.params import SamplingParams
    from ..decoder.decoder import Decoder

EXAMPLES = {"gamma": "0.7", "router": "p-fc", "temperature": "0.8", "seed": "7"}
"""Settings that can be changed on the way, each with a value."""
COMMANDS = {
    "trace on": "Mark who gave each token.",
    "retry": "Another answer to the same message.",
    "reset": "Forget the conversation.",
    "help": "This list.",
    "quit": "Leave; so does Ctrl-D.",
}


@options.takes(*options.SAMPLING, options.SYSTEM, *options.PAIR)
def chat(trace: options.Trace = False, **given: Any) -> None:
    """Talk to a pair; /help lists what can be changed on the way.

    Ctrl-C cancels the running answer, Ctrl-D leaves. Lines from a pipe work as typed ones do.
    """
    if given["seed"] is None:
        given["seed"] = secrets.randbelow(10**4)  # short: it is shown and typed
    params = options.sampling(given)
    pair = options.open_pair(given)
    from ..decoder.decoder import Decoder

    with Decoder(pair) as decoder:
        Chat(decoder, params, given["system"], trace).run()


@dataclass
class Chat:
    """A conversation and its settings.

    Attributes:
        decoder: Answers.
        params: How to decode; each answer takes its seed, and the next one the seed after.
        system: What the models are told beforehand.
        trace: Whether to mark who gave each token.
        messages: What was said; a cancelled answer leaves its question at the end.
        limits_told: Whether it was said what the tiny pair knows.
    """

    decoder: Decoder
    params: SamplingParams
    system: str | None
    trace: bool
    messages: list[dict[str, str]] = field(default_factory=list)
    limits_told: bool = False

    def run(self) -> None:
        """Read lines until the end of the input or /quit."""
        at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if at_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401 -- gives input() a history and the usual keys
            tell(f"{self.decoder.pair.name} · {self.settings()} · /help lists commands")
            if self.decoder.pair.name == "tiny":
                say(options.TINY_KNOWS, "Note:")
                self.limits_told = True
        while True:
            try:
                line = input("> " if at_terminal else "").strip()
                if line == "/quit":
                    return
                self.handle(line)
            except EOFError:
                if at_terminal:
                    typer.echo(err=True)
                return
            except KeyboardInterrupt:
                typer.echo(err=True)
            except BacoError as error:
                say(str(error))

    def handle(self, line: str) -> None:
        """Run a command, or answer a message."""
        match line.split(maxsplit=1):
            case [word, *value] if word[1:] in EXAMPLES and word[0] == "/":
                self.change(word[1:], *value)
            case ["/trace", ("on" | "off") as value]:
                self.trace = value == "on"
                tell(f"trace {value}")
            case ["/trace", *value]:
                remedy = "For example /trace on."
                raise ParameterError("/trace", "on or off", "".join(value), remedy)
            case ["/retry", *_]:
                self.answer()
            case ["/reset", *_]:
                self.messages = []
                tell("The conversation starts anew.")
            case ["/help", *_]:
                tell(self.help())
            case [word, *_] if word[0] == "/":
                known = [f"/{each.split()[0]}" for each in (*EXAMPLES, *COMMANDS)]
                remedy = f"{nearest(word, known)}/help says what they do."
                raise ParameterError("A command", f"one of {', '.join(known)}", word, remedy)
            case [_, *_]:
                if self.messages and self.messages[-1]["role"] == "user":
                    self.messages.pop()
                self.messages.append({"role": "user", "content": line})
                self.answer()

    def change(self, name: str, value: str | None = None) -> None:
        """Change a setting if there is a value, and show what is set."""
        if value is not None:
            kind = options.option_type(type(self.params).model_fields[name].annotation)
            setting: object = value
            with suppress(ValueError):  # SamplingParams then says what is allowed
                setting = kind(value)
            self.params = self.params.replace(**{name: setting})
        tell(self.settings())

    def answer(self) -> None:
        """Answer the last message, instead of an earlier answer if there is one."""
        if not self.messages:
            tell("There is no message to answer yet.")
            return
        if self.messages[-1]["role"] == "assistant":
            self.messages.pop()
        before = [{"role": "system", "content": self.system}] if self.system else []
        conversation = [*before, *self.messages]
        if len(self.messages) == 1 and not self.limits_told:
            self.limits_told = options.known_request(self.decoder.pair, conversation) is None
        params = self.params
        self.params = params.replace(seed=((params.seed or 0) + 1) % 2**64)
        with self.decoder.stream(conversation, params) as stream:
            try:
                write(stream, self.trace)
            except KeyboardInterrupt:
                tell("\nCancelled; /retry asks again.")
                return
        self.messages.append({"role": "assistant", "content": stream.completions[0].text})
        if self.trace:
            print_provenance(stream.completions)

    def settings(self) -> str:
        """Say in a line what is set."""
        params = self.params
        gamma = f" gamma {params.effective_gamma:g}" if params.spec.rule else ""
        temperature = f"temperature {params.temperature:g}"
        return f"{params.spec.name}{gamma} · {temperature} · next seed {params.seed}"

    def help(self) -> RenderableType:
        """Return a table of all commands, with what is set now."""
        from rich.table import Table

        from ..core.settings import stated

        params = self.params
        fields = type(params).model_fields
        now = {
            "gamma": f"{params.effective_gamma:g}" if params.spec.rule else "without effect",
            "router": params.spec.name,
            "temperature": f"{params.temperature:g}",
            "seed": str(params.seed),
            "trace on": "on" if self.trace else "off",
        }
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, example in EXAMPLES.items():
            table.add_row(f"/{name} {example}", f"now {now[name]}", stated(fields[name], "help"))
        for command, text in COMMANDS.items():
            table.add_row(f"/{command}", f"now {now[command]}" if command in now else "", text)
        return table


def tell(shown: RenderableType) -> None:
    """Print something about the conversation on stderr."""
    from rich.text import Text

    from .display import console

    console(stderr=True).print(Text(shown) if isinstance(shown, str) else shown, style="dim")
