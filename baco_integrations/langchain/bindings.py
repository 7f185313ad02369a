"""Chat models in core's wrappers, which keep what is bound or configured when tools are bound.

Core's own wrappers hand `bind_tools` and the like on to the model as it was before it was wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField, Runnable, RunnableBinding

from . import structured
from .batches import NumberedAlternatives, NumberedFields
from .brainstorm import Brainstorm, brainstorm


class Wrappable:
    """A chat model, wrapped or not, that is wrapped further in the classes below."""

    def bind(self, **kwargs: Any) -> BoundChatBACo:
        """Return the model with settings of a call, such as ``gamma``, bound to it."""
        return BoundChatBACo(bound=self, kwargs=kwargs, config={})

    def configurable_alternatives(
        self, which: ConfigurableField, **kwargs: Any
    ) -> AlternativeChatBACo:
        """Return this model and others; the config of a call says which."""
        made: Any = super().configurable_alternatives(which, **kwargs)  # type: ignore[misc]
        return AlternativeChatBACo(
            **{name: getattr(made, name) for name in type(made).model_fields}
        )

    def brainstorm(self, **settings: Any) -> Brainstorm:
        """Return a runnable that gives distinct answers; settings are those of `brainstorm`."""
        return brainstorm(self, **settings)  # type: ignore[arg-type]


class Wrapped(Wrappable):
    """What a wrapper of a chat model does; the wrapped model says what it means."""

    _inner: ClassVar[str] = "default"
    """The field that holds the model."""

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools; see `ChatBACo.bind_tools`."""
        bound = getattr(self, self._inner).bind_tools(tools, **kwargs)
        return self.bind(**bound.kwargs)

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: str = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable of objects; see `ChatBACo.with_structured_output`."""
        return structured.structured(self, schema, method, include_raw, kwargs)


class BoundChatBACo(Wrapped, RunnableBinding):  # type: ignore[type-arg, no-redef]
    """A `ChatBACo` with settings or a config bound to it."""

    _inner: ClassVar[str] = "bound"

    def bind(self, **kwargs: Any) -> Any:
        """Return the model with further settings bound to it."""
        return RunnableBinding.bind(self, **kwargs)

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return core's own class, which serialized objects name."""
        return RunnableBinding.lc_id()


class ConfigurableChatBACo(Wrapped, NumberedFields):
    """A `ChatBACo` some of whose fields come with the config."""


class AlternativeChatBACo(Wrapped, NumberedAlternatives):
    """A `ChatBACo` and other models, of which the config chooses one."""

    def bind(self, **kwargs: Any) -> Any:
        """Return the models with settings of a call bound to each."""
        return self._each(lambda model: model.bind(**kwargs))

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Let the models call tools, each in its own way."""
        return self._each(lambda model: model.bind_tools(tools, **kwargs))

    def with_structured_output(self, schema: Any = None, **kwargs: Any) -> Any:
        """Return runnables of objects, each in its model's own way."""
        return self._each(lambda model: model.with_structured_output(schema, **kwargs))

    def _each(self, change: Callable[[Any], Any]) -> Any:
        alternatives = {
            key: change(model) if isinstance(model, Runnable) else _later(model, change)
            for key, model in self.alternatives.items()
        }
        return self.model_copy(
            update={"default": change(self.default), "alternatives": alternatives}
        )


def _later(make: Callable[[], Any], change: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: change(make())
