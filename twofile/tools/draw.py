"""The driver `image`: a picture from instructions for shapes, or from a description where the user has a model for it.

Shapes are drawn here, by pillow, in the order they come: rectangle, ellipse, line, polygon, text. A description goes to
the server that the user named (`/v1/images/generations`, as OpenAI's): that leads out of the machine, and is asked for.
Guarantee: sizes are bounded before anything is drawn, and what a server gives is a picture or an error.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2

from twofile.errors import ToolError
from twofile.kernel.driver import Context, Part, image
from twofile.kernel.label import Label

__all__ = ["Draw"]

_SIDE, _SHAPES, _CORNERS, _TEXT = 2048, 500, 1000, 200
_FINER = 2  # drawn so much larger, then made small: edges are smooth
_LARGEST = 1 << 23  # bytes of an answer

_PLACE = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


class Draw:
    """The driver. `server`: the base address of an API that makes pictures of descriptions, "" for none; `key`: what it
    wants as a bearer; `client`: what it is asked with, for tests and for a proxy."""

    name = "image"
    pure = True

    def __init__(self, server: str = "", key: str = "", client: httpx2.Client | None = None) -> None:
        host = urlsplit(server).hostname
        if server and (urlsplit(server).scheme not in ("http", "https") or not host):
            raise ToolError(f"{server!r} is no address of a server for pictures", "http://127.0.0.1:7860, for one")
        self.server, self.host, self._key, self._client = server.rstrip("/"), host or "", key, client
        self.about = "Draws a picture of shapes: rectangle, ellipse, line, polygon, text." + (
            " Or makes one of a description." if server else ""
        )
        described = {"description": {"type": "string"}} if server else {}
        self.schema: Mapping[str, Any] = {
            "type": "object",
            "properties": {
                **described,
                "width": {"type": "integer", "minimum": 1, "maximum": _SIDE},
                "height": {"type": "integer", "minimum": 1, "maximum": _SIDE},
                "background": {"type": "string"},
                "shapes": {
                    "type": "array",
                    "maxItems": _SHAPES,
                    "items": {
                        "type": "object",
                        "properties": {
                            "shape": {"enum": ["rectangle", "ellipse", "line", "polygon", "text"]},
                            "points": {"type": "array", "items": _PLACE, "minItems": 1, "maxItems": _CORNERS},
                            "fill": {"type": "string"},
                            "outline": {"type": "string"},
                            "width": {"type": "number"},
                            "text": {"type": "string"},
                            "size": {"type": "number"},
                        },
                        "required": ["shape", "points"],
                        "additionalProperties": False,
                    },
                },
            },
            "additionalProperties": False,
        }

    def needs(self, arguments: Mapping[str, Any]) -> Sequence[str]:
        return (f"net:{self.host}",) if arguments.get("description") and self.server else ()

    def label(self, arguments: Mapping[str, Any]) -> Label:
        return Label.of(f"net:{self.host}") if self.needs(arguments) else Label()

    def run(self, arguments: Mapping[str, Any], context: Context) -> Iterable[Part | str | bytes]:
        if arguments.get("description"):
            if not self.server:
                raise ValueError("there is no model here that makes pictures of descriptions: give shapes")
            yield self._made(str(arguments["description"]), context)
        else:
            yield _drawn(arguments)

    def _made(self, description: str, context: Context) -> Part:
        """What the server makes of a description."""
        asked = {"prompt": description[:4000], "n": 1, "response_format": "b64_json"}
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        client = self._client or httpx2.Client(trust_env=False)
        try:
            address = f"{self.server}/v1/images/generations"
            with client.stream("POST", address, json=asked, headers=headers, timeout=context.seconds) as answer:
                raw = bytearray()
                for piece in answer.iter_bytes():
                    raw += piece
                    if len(raw) > 2 * _LARGEST:
                        raise ValueError(f"{self.host} answers with more than {2 * _LARGEST >> 20} MB")
                if answer.status_code != 200:
                    said = raw[:200].decode("utf-8", "replace")
                    raise ValueError(f"{self.host} answers {answer.status_code}: {said}")
        except httpx2.HTTPError as error:
            raise ValueError(f"{self.host} cannot be asked for a picture: {type(error).__name__}") from error
        finally:
            if self._client is None:
                client.close()
        try:
            data = base64.b64decode(json.loads(raw)["data"][0]["b64_json"], validate=True)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ValueError(f"what {self.host} answers has no picture") from error
        return image(_as_png(data), "image/png", f"made by {self.host} of: {description[:300]}")


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageColor
        import PIL.ImageDraw
        import PIL.ImageFont
    except ModuleNotFoundError as error:
        hint = "pip install 'twofile[tools]'"
        raise ToolError("pictures are drawn with pillow, which is not installed", hint) from error
    return PIL


def _as_png(data: bytes) -> bytes:
    """A picture of another, in a form that is known. ValueError for what is none, or too large."""
    pillow = _pillow()
    try:
        with pillow.Image.open(io.BytesIO(data), formats=["PNG", "JPEG", "WEBP"]) as opened:
            if opened.width * opened.height > _SIDE * _SIDE:
                raise ValueError(f"the picture has {opened.width} by {opened.height} points, which is too many")
            file = io.BytesIO()
            opened.convert("RGB").save(file, "PNG")
            return file.getvalue()
    except (OSError, SyntaxError) as error:
        raise ValueError(f"what was given is no picture ({error})") from error


def _drawn(arguments: Mapping[str, Any]) -> Part:
    pillow = _pillow()
    width, height = int(arguments.get("width", 512)), int(arguments.get("height", 512))
    shapes = list(arguments.get("shapes") or ())
    if not (1 <= width <= _SIDE and 1 <= height <= _SIDE) or len(shapes) > _SHAPES:
        raise ValueError(f"a picture has at most {_SIDE} by {_SIDE} points and {_SHAPES} shapes")
    if not shapes:
        raise ValueError("there is nothing to draw: shapes has to have one at least")
    size = (width * _FINER, height * _FINER)
    picture = pillow.Image.new("RGB", size, _colour(arguments.get("background", "white")))
    pen = pillow.ImageDraw.Draw(picture, "RGBA")
    for number, shape in enumerate(shapes, 1):
        try:
            _shape(pen, shape)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"shape {number} cannot be drawn: {error}") from error
    file = io.BytesIO()
    picture.resize((width, height), pillow.Image.Resampling.LANCZOS).save(file, "PNG")
    counts: dict[str, int] = {}
    for shape in shapes:
        name = f"{shape.get('fill', '')} {shape['shape']}".strip()
        counts[name] = counts.get(name, 0) + 1
    told = ", ".join(f"{count} {name}" for name, count in counts.items())
    return image(file.getvalue(), "image/png", f"a drawing, {width} by {height}: {told}"[:600])


def _shape(pen: Any, given: Mapping[str, Any]) -> None:
    points = [(float(x) * _FINER, float(y) * _FINER) for x, y in given["points"][:_CORNERS]]
    if any(not abs(value) <= 100 * _SIDE for point in points for value in point):
        raise ValueError("a point is too far away")
    fill = _colour(given["fill"]) if given.get("fill") else None
    outline = _colour(given["outline"]) if given.get("outline") else None if fill else _colour("black")
    wide = max(1, min(_SIDE, round(float(given.get("width", 2)) * _FINER)))
    match given["shape"]:
        case "rectangle" | "ellipse" as kind:
            (x1, y1), (x2, y2) = points
            box = (min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2))
            getattr(pen, kind)(box, fill=fill, outline=outline, width=wide)
        case "line":
            pen.line(points, fill=outline or fill, width=wide, joint="curve")
        case "polygon":
            if len(points) < 3:
                raise ValueError("a polygon has three points at least")
            pen.polygon(points, fill=fill, outline=outline, width=wide)
        case "text":
            size = max(4, min(400, float(given.get("size", 20)))) * _FINER
            font = _pillow().ImageFont.load_default(size=size)
            pen.text(points[0], str(given.get("text", ""))[:_TEXT], fill=fill or outline, font=font)


def _colour(name: Any) -> tuple[int, ...]:
    try:
        found: tuple[int, ...] = _pillow().ImageColor.getrgb(str(name)[:60])
    except ValueError:
        raise ValueError(f"{str(name)[:60]!r} is no colour: names as red, or #rrggbb") from None
    return found
