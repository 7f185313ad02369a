"""`baco chat`: a conversation, with everything about decoding within reach.

Answers go to stdout and all else to stderr, so a script's answers can be piped on.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from ..core.errors import BacoError, ParameterError, nearest
from . import options
from .errors import say
from .generate import tell_how, write

if TYPE_CHECKING:
    from ..core.params import SamplingParams
    from ..decoder.decoder import Decoder

_SETTINGS: dict[str, Callable[[str], object]] = {
    "gamma": float,
    "router": str,
    "temperature": float,
    "seed": int,
}
_HELP = {
    "gamma 0.7": "diversity, from 0 to 1",
    "router p-fc": "who gives the next token",
    "temperature 0.8": "0 is greedy",
    "seed 7": "make the next answers repeatable",
    "trace on": "mark who gave each token",
    "retry": "another answer to the same message",
    "reset": "forget the conversation",
    "help": "this list",
    "quit": "leave; so does Ctrl-D",
}


def chat(
    gamma: options.Gamma = None,
    router: options.Router = None,
    temperature: options.Temperature = None,
    top_k: options.TopK = None,
    top_p: options.TopP = None,
    min_p: options.MinP = None,
    max_tokens: options.MaxTokens = None,
    seed: options.Seed = None,
    system: options.System = None,
    pair: options.Pair = None,
    base: options.Base = None,
    aligned: options.Aligned = None,
    base_prompt: options.BasePrompt = None,
    dtype: options.Dtype = None,
    device: options.Device = None,
    quantization: options.Quantization = None,
    trace: options.Trace = False,
) -> None:
    """Talk to a pair; /help lists what can be changed on the way.

    Ctrl-C cancels the running answer, Ctrl-D leaves. Lines from a pipe work as typed ones do.
    """
    params = options.sampling(
        gamma=gamma,
        router=router,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        max_tokens=max_tokens,
        seed=secrets.randbelow(10**4) if seed is None else seed,  # short: it is shown and typed
    )
    loaded = options.open_pair(pair, base, aligned, dtype, device, quantization, base_prompt)
    from ..decoder.decoder import Decoder

    with Decoder(loaded) as decoder:
        Chat(decoder, params, system, trace).run()


@dataclass
class Turn:
    """What the user said, and the answer unless it was cancelled."""

    question: str
    answer: str | None = None


class Chat:
    """A conversation and its settings.

    Args:
        decoder: Answers.
        params: How to decode at first; each answer takes a seed, and the next one the seed after.
        system: What the models are told beforehand.
        trace: Whether to mark who gave each token.
    """

    def __init__(
        self, decoder: Decoder, params: SamplingParams, system: str | None, trace: bool
    ) -> None:
        self._decoder, self._params, self._trace = decoder, params, trace
        self._system = system
        self._turns: list[Turn] = []
        self._told_limits = False

    def run(self) -> None:
        """Read lines until the end of the input or /quit."""
        at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
        if at_terminal:
            with suppress(ImportError):
                import readline  # noqa: F401 -- gives input() a history and the usual keys
            self._tell(f"{self._decoder.pair.name} · {self._settings()} · /help lists commands")
            if self._decoder.pair.name == "tiny":
                say(options.TINY_KNOWS, "Note")
                self._told_limits = True
        while True:
            try:
                line = input("> " if at_terminal else "").strip()
                if line == "/quit":
                    return
                self._handle(line)
            except EOFError:
                if at_terminal:
                    typer.echo(err=True)
                return
            except KeyboardInterrupt:
                typer.echo(err=True)
            except BacoError as error:
                say(str(error))

    def _handle(self, line: str) -> None:
        if line.startswith("/"):
            self._command(*line[1:].split(maxsplit=1))
        elif line:
            self._turns = [turn for turn in self._turns if turn.answer is not None]
            self._turns.append(Turn(line))
            self._answer()

    def _command(self, name: str = "", value: str = "") -> None:
        commands: dict[str, Callable[[], None]] = {
            "retry": self._answer,
            "reset": self._reset,
            "help": self._help,
        }
        if name in _SETTINGS:
            self._set(name, value)
        elif name == "trace":
            self._set_trace(value)
        elif name in commands:
            commands[name]()
        else:
            known = [f"/{word.split()[0]}" for word in _HELP]
            remedy = f"{nearest(f'/{name}', known)}/help says what they do."
            raise ParameterError("A command", f"one of {', '.join(known)}", f"/{name}", remedy)

    def _set(self, name: str, value: str) -> None:
        setting: object = value
        with suppress(ValueError):  # SamplingParams then says what is allowed
            setting = _SETTINGS[name](value)
        if value:
            self._params = self._params.replace(**{name: setting})
        self._tell(self._settings())

    def _set_trace(self, value: str) -> None:
        if value not in ("on", "off"):
            raise ParameterError("/trace", "on or off", value, "For example /trace on.")
        self._trace = value == "on"
        self._tell(f"trace {value}")

    def _reset(self) -> None:
        self._turns = []
        self._tell("The conversation starts anew.")

    def _help(self) -> None:
        params, width = self._params, max(map(len, _HELP)) + 1
        now = {
            "gamma": f"{params.effective_gamma:g}" if params.spec.rule else "without effect",
            "router": params.spec.name,
            "temperature": f"{params.temperature:g}",
            "seed": str(params.seed),
            "trace": "on" if self._trace else "off",
        }
        lines = []
        for command, text in _HELP.items():
            value = now.get(command.split()[0])
            lines.append(f"/{command:<{width}} {text}" + (f" (now {value})" if value else ""))
        self._tell("\n".join(lines))

    def _answer(self) -> None:
        """Answer the last message, instead of an earlier answer if there is one."""
        if not self._turns:
            self._tell("There is no message to answer yet.")
            return
        turn = self._turns[-1]
        turn.answer = None
        if len(self._turns) == 1 and not self._told_limits:
            request = options.known_request(self._decoder.pair, self._messages())
            self._told_limits = request is None
        params = self._params
        self._params = params.replace(seed=((params.seed or 0) + 1) % 2**64)
        with self._decoder.stream(self._messages(), params) as stream:
            try:
                write(stream, self._trace)
            except KeyboardInterrupt:
                self._tell("\nCancelled; /retry asks again.")
                return
        turn.answer = stream.completions[0].text
        if self._trace:
            tell_how(stream.completions)

    def _messages(self) -> list[dict[str, str]]:
        found = [{"role": "system", "content": self._system}] if self._system else []
        for turn in self._turns:
            found.append({"role": "user", "content": turn.question})
            if turn.answer is not None:
                found.append({"role": "assistant", "content": turn.answer})
        return found

    def _settings(self) -> str:
        params = self._params
        gamma = f" gamma {params.effective_gamma:g}" if params.spec.rule else ""
        temperature = f"temperature {params.temperature:g}"
        return f"{params.spec.name}{gamma} · {temperature} · next seed {params.seed}"

    def _tell(self, text: str) -> None:
        from rich.text import Text

        from .display import console

        console(stderr=True).print(Text(text, "dim"))
