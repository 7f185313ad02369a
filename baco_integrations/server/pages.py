"""Pages for people: the playground, and a reference of the API. Nothing comes from elsewhere."""

from __future__ import annotations

from importlib.resources import files

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}


def add_pages(app: FastAPI) -> None:
    """Add the playground at ``/``, with its files beside it, and the reference at ``/docs``."""
    for file in (files(__package__) / "playground").iterdir():
        kind = next((kind for end, kind in KINDS.items() if file.name.endswith(end)), None)
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            add_file(app, path, file.read_bytes(), f"{kind}; charset=utf-8")
    templates = Environment(loader=PackageLoader(__package__, "."), autoescape=True)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        """Show what the API takes and returns."""
        page = templates.get_template("docs.html").render(api=request.app.openapi())
        return HTMLResponse(page, headers=HEADERS)


def add_file(app: FastAPI, path: str, content: bytes, kind: str) -> None:
    """Serve a file as it is."""

    @app.get(path, include_in_schema=False)
    async def page() -> Response:
        return Response(content, media_type=kind, headers=HEADERS)
