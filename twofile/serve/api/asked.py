"""What may be asked, and how the answer to it is checked before anything runs: the requests of OpenAI's API.

What is not understood is refused by name rather than passed over, but for what cannot change the answer (`user`,
`store`, `metadata` and the like). Source: OpenAI's API reference, chat completions and completions.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from twofile.engine.sampler import Sampling

__all__ = ["ChatAsked", "CompletionAsked", "EmbeddingAsked", "Message", "RequestError"]

_LONGEST = 1 << 24  # characters of a text
_MOST = 128  # answers to one request


class RequestError(Exception):
    """A request that cannot be met. `status` as in HTTP; `param`: the field at fault."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code = message, status, param, code


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow")
    type: str
    text: str | None = None


class Message(BaseModel):
    """A message of a conversation."""

    model_config = ConfigDict(extra="allow")
    role: str
    content: str | list[_Part] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    def plain(self) -> dict[str, Any]:
        """As chat templates take it: arguments of calls as what they are, not as JSON. RequestError for parts that are
        no text."""
        given = self.model_dump(exclude_none=True, exclude={"content"})
        for call in given.get("tool_calls", ()):
            function = call.get("function")
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                try:
                    arguments = json.loads(function["arguments"] or "{}")
                except (ValueError, RecursionError):
                    continue
                if isinstance(arguments, dict):
                    function["arguments"] = arguments
        if isinstance(self.content, list):
            if bad := [part.type for part in self.content if part.type not in ("text", "refusal") or part.text is None]:
                raise RequestError(f"this model reads text, and no {bad[0]}", param="messages")
            return given | {"content": "".join(part.text or "" for part in self.content)}
        return given | {"content": self.content or ""}


class _Plain(BaseModel):
    """What all kinds of requests have."""

    model_config = ConfigDict(extra="forbid")
    model: str
    user: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, asked: Any) -> Any:
        """What is null was not asked."""
        return {key: value for key, value in asked.items() if value is not None} if isinstance(asked, dict) else asked


class EmbeddingAsked(_Plain):
    """`POST /v1/embeddings`."""

    input: str | list[str] | list[int] | list[list[int]] = Field(union_mode="left_to_right")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None

    @model_validator(mode="after")
    def _possible(self) -> EmbeddingAsked:
        if self.dimensions is not None:
            raise ValueError("dimensions is not supported: a vector has as many as the model is wide")
        if not self.input:
            raise ValueError("there is no input")
        return self

    @property
    def inputs(self) -> list[str] | list[list[int]]:
        """One or several, as texts or as tokens."""
        return _several(self.input)


def _several(given: Any) -> list[Any]:
    return [given] if isinstance(given, str) or (given and isinstance(given[0], int)) else given


class _Asked(_Plain):
    """What requests for texts have."""

    n: int = Field(1, ge=1, le=_MOST)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    top_k: int | None = Field(None, ge=0)
    min_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    repetition_penalty: float | None = Field(None, gt=0)
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    store: bool | None = None
    metadata: dict[str, Any] | None = None

    service_tier: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="after")
    def _known(self) -> _Asked:
        if self.frequency_penalty:
            raise ValueError("frequency_penalty is not supported; presence_penalty and repetition_penalty are")
        return self

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else list(self.stop or ())

    @property
    def counts_usage(self) -> bool:
        """Whether a stream ends with what it took."""
        return bool((self.stream_options or {}).get("include_usage"))

    def sampling(self, number: int) -> Sampling:
        """The settings of the answer with this number. RequestError where they make no sense."""
        given: dict[str, Any] = {
            "temperature": 1.0 if self.temperature is None else self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_k": self.top_k or 0,
            "min_p": self.min_p or 0.0,
            "presence": self.presence_penalty or 0.0,
            "repetition": self.repetition_penalty or 1.0,
            "logit_bias": self.logit_bias or {},
            "seed": None if self.seed is None else (self.seed + number) % (1 << 64),
        }
        try:
            return Sampling(**given)
        except ValueError as error:
            raise RequestError(str(error)) from None


class ChatAsked(_Asked):
    """`POST /v1/chat/completions`."""

    messages: list[Message] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["auto", "none", "required"] | dict[str, Any] = "auto"
    parallel_tool_calls: bool = True
    response_format: dict[str, Any] | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    chat_template_kwargs: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _possible(self) -> ChatAsked:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs wants logprobs")
        return self

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def choice(self) -> tuple[Literal["auto", "none", "required"], str | None]:
        """How tools are to be called, and the only one that is."""
        given = self.tool_choice
        if isinstance(given, str):
            if given == "required" and not self.tools:
                raise RequestError("a call is required, and there are no tools", param="tool_choice")
            return given, None
        function = given.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not self.tools:
            raise RequestError("tool_choice names no function that is there", param="tool_choice")
        return "auto", name

    @property
    def shape(self) -> dict[str, Any] | None:
        """Of the JSON that the reply is to be; None for any text."""
        kind = (self.response_format or {"type": "text"}).get("type")
        if kind == "text":
            return None
        if kind == "json_object":
            return {"type": "object"}
        found = (self.response_format or {}).get("json_schema")
        schema = found.get("schema") if kind == "json_schema" and isinstance(found, dict) else None
        if not isinstance(schema, dict):
            raise RequestError(
                "response_format is text, json_object, or json_schema with a schema", param="response_format"
            )
        return schema


class CompletionAsked(_Asked):
    """`POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(union_mode="left_to_right")
    max_tokens: int | None = Field(16, ge=0)
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20)
    best_of: int | None = None
    suffix: str | None = None

    @model_validator(mode="after")
    def _possible(self) -> CompletionAsked:
        if self.best_of not in (None, self.n):
            raise ValueError("best_of is not supported; n is")
        if self.suffix:
            raise ValueError("suffix is not supported")
        if self.stream and self.echo:
            raise ValueError("echo and stream exclude one another here")
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """One or several, as texts or as tokens."""
        return _several(self.prompt)
