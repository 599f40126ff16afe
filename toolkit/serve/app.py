"""The addresses of the pages, and what is answered at each."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from toolkit.errors import RackproofError
from toolkit.report.html.gather import gather
from toolkit.report.html.page import report_page
from toolkit.report.in_force import in_force, own_trust
from toolkit.serve.access import LONGEST_TOKEN, Access
from toolkit.serve.board import Summary
from toolkit.serve.certificates_view import certificate_page, certificates_page
from toolkit.serve.fleet import fleet_page
from toolkit.serve.guard import LOGIN, LOGOUT, MAX_BODY, Guard, cookie_name, safe_next, session_numbers
from toolkit.serve.live import Hub, TooManyError
from toolkit.serve.node_view import node_page
from toolkit.serve.pages import STATIC, render, static
from toolkit.serve.part_view import part_page
from toolkit.serve.queue_view import Dues, queue_page
from toolkit.serve.rack_view import rack_page
from toolkit.serve.runbook_view import code_page, codes
from toolkit.serve.site import Site, problem_of

if TYPE_CHECKING:
    from starlette.requests import Request

_READ_EVERY_S = 5.0
_FORM_S = 10.0
_STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
_LONGEST_QUESTION = 120
Handler = Callable[["Request"], Response]


def make_app(site: Site, access: Access, hub: Hub, *, secure: bool) -> Guard:
    """The application, all of it behind the guard. secure: browsers reach it by https."""
    pages = Pages(site, access, hub, secure)
    routes = [
        Route("/", pages.fleet),
        Route("/racks/{rack}", pages.rack),
        Route("/racks/{rack}/report", pages.report),
        Route("/racks/{rack}/nodes/{node}", pages.node),
        Route("/parts/{serial:path}", pages.part),
        Route("/certificates", pages.certificates),
        Route("/certificates/{digest}", pages.certificate),
        Route("/queue", pages.queue),
        Route("/runbooks", pages.runbooks),
        Route("/runbooks/{code}", pages.runbook),
        Route("/find", pages.find),
        Route("/metrics", pages.metrics),
        Route("/events", pages.events),
        Route("/static/{name}", pages.static),
        Route(LOGIN, pages.login, methods=["GET", "POST"]),
        Route(LOGOUT, pages.logout, methods=["POST"]),
    ]
    inner = Starlette(
        routes=routes,
        middleware=[Middleware(GZipMiddleware, minimum_size=2_000)],
        exception_handlers={
            RackproofError: pages.trouble, HTTPException: pages.refused, Exception: pages.defect,
        },
        lifespan=pages.alive,
    )  # fmt: skip
    return Guard(inner, access, secure=secure)


@dataclass(slots=True)
class Pages:
    """Answers. What reads the ledger is a plain function: Starlette runs it beside its loop."""

    site: Site
    access: Access
    hub: Hub
    secure: bool
    dues: Dues = field(default_factory=Dues)

    @asynccontextmanager
    async def alive(self, _: Starlette) -> AsyncIterator[None]:
        """As long as the server runs: reads where boards sat."""
        reader = asyncio.create_task(self._read_seats())
        try:
            yield
        finally:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _read_seats(self) -> None:
        while True:
            more = False
            with suppress(RackproofError):  # the ledger is away: a page that needs it says so
                newest = await asyncio.to_thread(self.site.ledger.last_event)
                more = await asyncio.to_thread(self.site.seats.read_some, newest)
            await asyncio.sleep(0 if more else _READ_EVERY_S)

    # Pages

    def fleet(self, request: Request) -> Response:
        """All racks."""
        return self._page("fleet.html", request, live="", fleet=fleet_page(self.site))

    def rack(self, request: Request) -> Response:
        """One rack."""
        rack = self._rack(request)
        return self._page("rack.html", request, live=rack.name, page=rack_page(self.site, rack))

    def report(self, request: Request) -> Response:
        """The rack's report, as `rackproof report` writes it. Its one style sheet is allowed by its hash."""
        rack = self._rack(request).design
        if rack is None:
            raise HTTPException(404, "the rack's file does not read: a report is of a rack as designed")
        now = self.site.clock()
        held = in_force(self.site.ledger, rack, own_trust(self.site.settings.keys, now), now)
        text = report_page(gather(self.site.ledger, rack, held, {}, now))
        # The first one is the template's own: nothing that a node said comes before it but the escaped title.
        style = _STYLE.search(text)
        allowed = f"sha256-{b64encode(sha256(style[1].encode()).digest()).decode()}" if style else "none"
        policy = f"default-src 'none'; style-src '{allowed}'; base-uri 'none'; frame-ancestors 'none'"
        return HTMLResponse(text, headers={"content-security-policy": policy})

    def node(self, request: Request) -> Response:
        """One node."""
        rack = self._rack(request)
        node = next((n for n in rack.nodes if n.name == request.path_params["node"]), None)
        if node is None:
            raise HTTPException(404, f"{rack.name} has no node of that name")
        page = node_page(self.site, rack, node, all_runs=request.query_params.get("runs") == "all")
        return self._page("node.html", request, live=rack.name, page=page)

    def part(self, request: Request) -> Response:
        """One part, by its serial."""
        page = part_page(self.site, request.path_params["serial"])
        if page is None:
            raise HTTPException(404, "no part of that serial is on record, and no rack file has it")
        return self._page("part.html", request, live=None, page=page)

    def certificates(self, request: Request) -> Response:
        """All certificates, or those of a rack."""
        rack = request.query_params.get("rack", "")
        return self._page("certificates.html", request, live="", page=certificates_page(self.site, rack), of=rack)

    def certificate(self, request: Request) -> Response:
        """One certificate."""
        page = certificate_page(self.site, request.path_params["digest"])
        if page is None:
            raise HTTPException(404, "no certificate of that sha256 is on record")
        return self._page("certificate.html", request, live=None, page=page)

    def queue(self, request: Request) -> Response:
        """What runs, what is due, what waits."""
        return self._page("queue.html", request, live="", page=queue_page(self.site, self.dues))

    def runbooks(self, request: Request) -> Response:
        """All codes."""
        return self._page("runbooks.html", request, live=None, codes=codes())

    def runbook(self, request: Request) -> Response:
        """One code."""
        page = code_page(self.site, request.path_params["code"])
        if page is None:
            raise HTTPException(404, "no finding has that code")
        return self._page("runbook.html", request, live=None, page=page)

    def find(self, request: Request) -> Response:
        """Goes to what was asked for: a rack, a node, a serial, a code, the beginning of a certificate's sha256."""
        asked = request.query_params.get("q", "").strip()[:_LONGEST_QUESTION]
        if not asked:
            return RedirectResponse("/", 303)
        targets = self._targets(asked)
        if len(targets) == 1:
            return RedirectResponse(targets[0][1], 303)
        status = 200 if targets else 404
        return self._page("found.html", request, live=None, status=status, asked=asked, targets=targets)

    def _targets(self, asked: str) -> list[tuple[str, str]]:
        """(words, address) of all that the question may mean."""
        racks = self.site.board.fleet()
        found = [(f"rack {r.name}", f"/racks/{quote(r.name, safe='')}") for r in racks if r.name == asked.lower()]
        found += [
            (f"node {n.name} of {r.name}", f"/racks/{quote(r.name, safe='')}/nodes/{quote(n.name, safe='')}")
            for r in racks if r.begun for n in r.nodes if n.name == asked.lower()
        ]  # fmt: skip
        known = {code for code, _ in codes()}
        found += [(f"code {asked.upper()}", f"/runbooks/{asked.upper()}")] if asked.upper() in known else []
        if len(asked) >= 8:
            records = self.site.board.certified.records()
            found += [(f"certificate {r.digest[:12]}", f"/certificates/{r.digest}") for r in records
                      if r.digest.startswith(asked.lower())][:8]  # fmt: skip
        part = part_page(self.site, asked)
        return [*found, (f"{part.kind} {part.serial}", f"/parts/{quote(part.serial, safe='')}")] if part else found

    # For programs

    def metrics(self, request: Request) -> Response:
        """For Prometheus."""
        wants = "application/openmetrics-text" in request.headers.get("accept", "")
        kind = (
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
            if wants
            else "text/plain; version=0.0.4; charset=utf-8"
        )
        return Response(self.site.metrics(openmetrics=wants), headers={"content-type": kind})

    async def events(self, request: Request) -> Response:
        """Server-sent events."""
        last = request.headers.get("last-event-id") or request.query_params.get("after", "")
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else None
        try:
            stream = await self.hub.stream(request.query_params.get("rack", ""), after)
        except TooManyError:
            return Response("rackproof: as many pages are open as are served live\n", 503, {"retry-after": "30"})
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    def static(self, request: Request) -> Response:
        """Style sheet, script and mark: of this version of ours, so that they may be kept."""
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404, "there is no such file")
        content, _ = static(name)
        return Response(content, media_type=STATIC[name], headers={"cache-control": "public, max-age=86400, immutable"})

    # In and out

    async def login(self, request: Request) -> Response:
        """The form; and what was typed into it."""
        if request.method != "POST":
            target = safe_next(request.query_params.get("next", "/"))
            return self._page("login.html", request, live=None, target=target, wrong=False)
        form = await _form(request)
        target = safe_next(form.get("next", "/"))
        if self.access.token is not None and not self.access.knows(form.get("token", "")[:LONGEST_TOKEN]):
            return self._page("login.html", request, live=None, status=403, target=target, wrong=True)
        answer = RedirectResponse(target, 303)
        name = cookie_name(secure=self.secure)
        answer.set_cookie(name, self.access.begin(), path="/", httponly=True, samesite="strict", secure=self.secure)
        return answer

    async def logout(self, request: Request) -> Response:
        """Ends the browser's session."""
        name = cookie_name(secure=self.secure)
        for number in session_numbers(request.headers.getlist("cookie"), name):
            self.access.end(number)
        answer = RedirectResponse(LOGIN if self.access.token else "/", 303)
        answer.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=self.secure)
        return answer

    # Trouble

    def trouble(self, request: Request, failure: Exception) -> Response:
        """An error of ours, in its own words."""
        assert isinstance(failure, RackproofError)  # noqa: S101 - registered for nothing else
        status, message, hint = problem_of(failure)
        return self._page("trouble.html", request, live=None, status=status, shown=status, message=message, hint=hint)

    def refused(self, request: Request, failure: Exception) -> Response:
        """What is not there, or may not be asked so."""
        assert isinstance(failure, HTTPException)  # noqa: S101 - registered for nothing else
        return self._page(
            "trouble.html", request, live=None, status=failure.status_code, shown=failure.status_code,
            message=failure.detail, hint="",
        )  # fmt: skip

    def defect(self, request: Request, failure: Exception) -> Response:
        """What should never happen. Its trace goes to stderr; the page has none, for it may quote a node."""
        words = f"{type(failure).__name__}: what went wrong is on the server's stderr"
        return self._page(
            "trouble.html", request, live=None, status=500, shown=500, message=words, hint="report it as a defect"
        )

    def _rack(self, request: Request) -> Summary:
        rack = self.site.board.rack(request.path_params["rack"])
        if rack is None:
            raise HTTPException(404, "no rack of that name is on record or in the inventory")
        return rack

    def _page(
        self, template: str, request: Request, *, live: str | None, status: int = 200, **values: Any
    ) -> HTMLResponse:
        """live: the rack that the page follows; empty: all; None: it follows nothing."""
        common = {
            "now": self.site.clock(), "path": request.url.path, "live": live, "after": self.site.board.last_event,
            "asked": "", "logged_in": self.access.token is not None and template != "login.html",
        }  # fmt: skip
        return HTMLResponse(render(template, **(common | values)), status)


async def _form(request: Request) -> dict[str, str]:
    """The fields of a small form that comes in time."""
    body = b""
    try:
        async with asyncio.timeout(_FORM_S):
            async for piece in request.stream():
                body += piece
                if len(body) > MAX_BODY:
                    raise HTTPException(413, "the form is too long")
    except TimeoutError:
        raise HTTPException(408, "the form did not come in time") from None
    fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
    return {name: told[0] for name, told in fields.items()}
