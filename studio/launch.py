"""Opening the doors: the address is checked, the page comes up, the studio is built behind it, and both are
closed in order.

``GET /healthz`` answers 200 once the studio can chat, 503 while it is opening or when it could not.
Everything heavy is loaded on the opening thread; importing this module loads neither Gradio nor any model
library.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.settings import StudioSettings
from studio.wording import reason_of

if TYPE_CHECKING:
    from fastapi import FastAPI

    from studio.opening import Opening

logger = logging.getLogger(__name__)


class AddressInUse(OSError):
    """Something listens on this host and port already; the message says what to do."""


def launch(settings: StudioSettings) -> int:
    """Serve the studio until it is interrupted. Returns the exit code: 0, or 1 after saying why it cannot
    start.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # It speaks of 4-bit kernels for CPUs, where this studio unpacks the weights instead.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    host, port = address(settings, os.environ)
    try:
        check_address(host, port)
        prepare(settings.data_dir)
    except (OSError, ValueError) as error:
        print(f"Thumbprint cannot start. {reason_of(error)}", file=sys.stderr)
        return 1
    import uvicorn

    class Doors(uvicorn.Server):
        """Loads the model once the page can answer: both at once would only make the page wait for the
        libraries.
        """

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            opening.begin()

    opening = open_studio(settings)
    app = create_app(settings, opening)
    shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    print(
        f"Thumbprint is at http://{shown}:{port} (data in {settings.data_dir}). Ctrl+C ends it.", flush=True
    )
    server = Doors(
        uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=3)
    )
    with suppress(KeyboardInterrupt):  # uvicorn passes Ctrl+C on after it has closed everything
        server.run()
    return 0 if server.started else 1


def address(settings: StudioSettings, environment: Mapping[str, str]) -> tuple[str, int]:
    """Where to listen. On a Space that is every interface: the container's door is the only way in."""
    on_space = "SPACE_ID" in environment and "host" not in settings.model_fields_set
    return ("0.0.0.0" if on_space else settings.host), settings.port


def check_address(host: str, port: int) -> None:
    """Raises `AddressInUse` when the port is taken, and `OSError` when the address is none of this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name == "posix":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == 98 or "in use" in str(error).lower():
                raise AddressInUse(
                    error.errno,
                    f"Port {port} on {host} is in use, perhaps by another Thumbprint. "
                    f"Close that one, or choose another port: python app.py --port {port + 1}",
                ) from error
            raise OSError(
                error.errno, f"{host}:{port} cannot be listened on ({error.strerror}). Change --host."
            ) from error


def prepare(data_dir: Path) -> None:
    """Make the data folder. Raises `OSError` with a sentence when that is not possible."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno,
            f"The data folder {data_dir} cannot be made ({error.strerror}). Choose another with --data-dir.",
        ) from error


def open_studio(settings: StudioSettings) -> Opening:
    """The studio of these settings, not begun yet."""
    from studio.opening import Opening

    def build_it() -> Any:
        from studio.build import build

        return build(settings)

    return Opening(build_it)


def create_app(settings: StudioSettings, opening: Opening) -> FastAPI:
    """The web application: ``/healthz``, the HTTP door under ``/v1`` and the page. The studio is closed when the
    application ends.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

    from studio import theme
    from studio.door.routes import mount_door
    from studio.page import build_page
    from studio.visitors import open_visitors

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> Any:
        yield
        opening.close()

    app = FastAPI(title="Thumbprint", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    def healthz() -> JSONResponse:
        if opening.studio is not None:
            served = opening.studio.serving.current
            return JSONResponse(
                {"status": "ok", "version": served.version, "fingerprint": served.fingerprint}
            )
        return JSONResponse(
            {"status": "failed" if opening.problem else "opening", "problem": opening.problem},
            status_code=503,
        )

    mount_door(app, settings, opening, bound_host=address(settings, os.environ)[0])
    page = build_page(opening, open_visitors(settings.data_dir))
    page.queue(default_concurrency_limit=None, max_size=512)
    return gr.mount_gradio_app(
        app,
        page,
        path="/",
        theme=theme.theme(),
        head=theme.head(),
        footer_links=[],
        run_history=False,
        show_error=False,
        ssr_mode=False,
    )
