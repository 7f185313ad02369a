"""Chat models in core's wrappers, which keep what is bound or configured when tools are bound.

Core's own wrappers hand `bind_tools` and the like on to the model as it was before it was wrapped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField, Runnable, RunnableBinding
from langchain_core.runnables.configurable import (
    RunnableConfigurableAlternatives,
    RunnableConfigurableFields,
)

from .batches import NumberedBatches
from .brainstorm import Brainstorm
from .structured import structured


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
        return AlternativeChatBACo(**dict(made))

    def brainstorm(self, **settings: Any) -> Brainstorm:
        """Return a runnable that gives distinct answers; settings are those of `brainstorm`."""
        return Brainstorm(self, **settings)  # type: ignore[arg-type]


class Wrapped(Wrappable):
    """A wrapper of a chat model, which says how tools are bound to it."""

    wrapped_in: ClassVar[str] = "default"
    """The field that holds the model."""

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools; see `ChatBACo.bind_tools`."""
        bound = getattr(self, self.wrapped_in).bind_tools(tools, **kwargs)
        return self.bind(**bound.kwargs)

    def with_structured_output(
        self, schema: Any = None, **settings: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Return a runnable of objects; see `ChatBACo.with_structured_output`."""
        return structured(self, schema, **settings)

    @classmethod
    def lc_id(cls) -> list[str]:
        """Return core's own class, which serialized objects name."""
        core: Any = next(base for base in cls.__mro__ if base.__module__.startswith("langchain_"))
        name: list[str] = core.lc_id()
        return name


class BoundChatBACo(Wrapped, RunnableBinding):  # type: ignore[type-arg, no-redef]
    """A `ChatBACo` with settings or a config bound to it."""

    wrapped_in: ClassVar[str] = "bound"

    def bind(self, **kwargs: Any) -> Any:
        """Return the model with further settings bound to it."""
        return RunnableBinding.bind(self, **kwargs)


class ConfigurableBACo(Wrapped, NumberedBatches, RunnableConfigurableFields):  # type: ignore[type-arg]
    """A model some of whose fields come with the config; only a chat model can be given tools."""

    def chosen_seed(self, chosen: Mapping[str, Any]) -> object:
        """Return the seed that a row's config sets, as text; None where it sets none."""
        # What is no seed may have no hash, but its text has one.
        return str(chosen.get(self.fields["seed"].id)) if "seed" in self.fields else None


class AlternativeChatBACo(Wrapped, NumberedBatches, RunnableConfigurableAlternatives):  # type: ignore[type-arg]
    """A `ChatBACo` and other models, of which the config chooses one."""

    def bind(self, **kwargs: Any) -> Any:
        """Return the models with settings of a call bound to each."""
        return self.with_each(lambda model: model.bind(**kwargs))

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        """Let the models call tools, each in its own way."""
        return self.with_each(lambda model: model.bind_tools(tools, **kwargs))

    def with_structured_output(self, schema: Any = None, **settings: Any) -> Any:
        """Return runnables of objects, each in its model's own way."""
        return self.with_each(lambda model: model.with_structured_output(schema, **settings))

    def with_each(self, change: Callable[[Any], Any]) -> Any:
        """Return a copy with each model changed, and models of factories once they are made."""

        def changed(model: Any) -> Any:
            return change(model) if isinstance(model, Runnable) else lambda: change(model())

        others = {key: changed(model) for key, model in self.alternatives.items()}
        return self.model_copy(update={"default": change(self.default), "alternatives": others})
