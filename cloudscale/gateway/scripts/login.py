"""The login service: the page on which a student types a password, and what leads from there to her seat.

A seat is opened by its token in a cookie, which the proxy checks by itself. So there are no sessions here: the service
hands out tokens, and knows nothing of who uses them. It is asked for everything that is not a seat's.
"""

import asyncio
import hmac
import re
import secrets
import time
from urllib.parse import parse_qs, urlencode, urlsplit

from limits import Limits
from tornado.template import Loader
from tornado.web import Application, RequestHandler

COOKIE = "__Host-Http-seat"  # no script and no other host can set one of this name (RFC 6265bis)
LIFE = 24 * 3600  # seconds
TICKET = 30  # seconds in which a browser goes from the address of the class to that of its seat
LONGEST_PASSWORD = 200
MOST_COOKIES = 200  # browsers keep 180 of an address
MOST_TICKETS = 20  # of one seat

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "noopener-allow-popups",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
WRONG = "This is not the password of a seat. Check it letter by letter."
TOO_MANY = "Too many wrong passwords came from your network. Try again in a minute."
FOREIGN = "This login came from another page. Type the password here."


class Seats:
    """Which password opens what, from login.json."""

    def __init__(self, table):
        self.title = str(table["title"])
        self.by_name = table["mode"] == "subdomain"
        self.address = str(table["address"])
        self._salt = bytes.fromhex(table["salt"])
        self._by_password = {seat["password"]: seat for seat in table["seats"]}
        self._by_token = {seat["token"]: seat for seat in table["seats"]}
        self._by_host = {seat["host"]: seat for seat in table["seats"]}

    def of_password(self, typed):
        digest = hmac.digest(self._salt, re.sub(r"[\s-]", "", typed).lower().encode(), "sha256").hex()
        return self._by_password.get(digest)

    def of_token(self, token):
        return self._by_token.get(token or "")

    def of_host(self, host):
        return self._by_host.get(host)


class Service:
    """What all requests share. `know` is called before the first one, and with each new table."""

    def __init__(self, pages, clock=time.monotonic):
        self.clock = clock
        self.limits = Limits(clock)
        self.tickets = Tickets(clock)
        self.pages = Loader(str(pages))
        self.style = (pages / "style.css").read_bytes()
        self.seats = None

    def know(self, table):
        self.seats = Seats(table)

    def application(self):
        shared = {"service": self}
        return Application(
            [
                (r"/\.gateway/style\.css", Style, shared),
                (r"/\.gateway/starting", Starting, shared),
                (r"/\.gateway/enter", Enter, shared),
                (r"(?:/.*)?/login", Login, shared),
                (r"(?:/.*)?/logout", Logout, shared),
                (r".*", Start, shared),
            ],
            log_function=lambda handler: None,  # addresses have tickets
        )


class Tickets:
    """Each leads one browser to one seat, once."""

    def __init__(self, clock):
        self._clock = clock
        self._open = {}

    def issue(self, token, way):
        now = self._clock()
        self._open = {name: value for name, value in self._open.items() if value[0] > now}
        for name in [name for name, value in self._open.items() if value[1] == token][: 1 - MOST_TICKETS]:
            del self._open[name]
        name = secrets.token_urlsafe(32)
        self._open[name] = (now + TICKET, token, way)
        return name

    def redeem(self, name):
        until, token, way = self._open.pop(name, (0, "", ""))
        return (token, way) if until > self._clock() else ("", "")


class Page(RequestHandler):
    def initialize(self, service):
        self.service = service
        self.seats = service.seats

    def set_default_headers(self):
        self.clear_header("Server")
        for name, value in HEADERS.items():
            self.set_header(name, value)

    def show(self, page, status=200, **values):
        self.set_status(status)
        # a login leads to the seat's own host
        hosts = f" https://*.{self.seats.address}" if self.seats.by_name else ""
        policy = f"{HEADERS['Content-Security-Policy']}; form-action 'self'{hosts}"
        self.set_header("Content-Security-Policy", policy)
        template = self.service.pages.load(f"{page}.html")
        self.finish(template.generate(title=self.seats.title, **values))

    def show_start(self, status=200, error="", said="", way=""):
        self.show("start", status, error=error, said=said, way=way)

    @property
    def is_navigation(self):
        """Whether a person goes to the page; programs that are no browsers do not say."""
        headers = self.request.headers
        return headers.get("Sec-Fetch-Mode", "navigate") == "navigate" and (
            headers.get("Sec-Fetch-Dest", "document") == "document"
        )

    @property
    def comes_from_elsewhere(self):
        """Whether a page of another origin sends this."""
        site, origin = self.request.headers.get("Sec-Fetch-Site"), self.request.headers.get("Origin")
        if site is not None:
            return site not in ("same-origin", "none")
        return origin is not None and parts(origin).netloc != self.request.host

    def open_seat(self, seat, way):
        """Sends the browser to its seat."""
        if self.seats.by_name:
            ticket = self.service.tickets.issue(seat["token"], way)
            self.redirect(f"https://{seat['host']}/.gateway/enter?{urlencode({'ticket': ticket})}", status=303)
            return
        self.hold(seat["token"])
        self.redirect(way, status=303)

    def hold(self, token, life=LIFE):
        """Lets the browser hold this seat, and nothing of one before: no cookie, no storage, no service worker."""
        for name in list(self.request.cookies)[:MOST_COOKIES]:
            if name != COOKIE:
                for domain in ("", f"; Domain={self.request.host_name}"):
                    self.add_header("Set-Cookie", f"{name}=; Path=/{domain}; Max-Age=0")
        self.add_header("Set-Cookie", f"{COOKIE}={token}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={life}")
        self.set_header("Clear-Site-Data", '"storage"')

    def not_here(self):
        self.set_status(401)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish("Log in first.\n")

    def write_error(self, status_code, **details):
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.finish(f"{self._reason}\n")

    def decode_argument(self, value, name=None):
        return value.decode(errors="replace")  # a wrong address leads to the start page, whatever is wrong with it

    def check_xsrf_cookie(self):
        """There is no session to misuse: whoever posts a password knows it. See comes_from_elsewhere."""


class Start(Page):
    """The address of the class, and every other one that leads nowhere."""

    def get(self):
        if not self.is_navigation:
            return self.not_here()
        if self.request.path != "/":
            home = f"https://{self.seats.address}/" if self.seats.by_name else "/"
            way = self.request.uri if len(self.request.uri) < 1000 else ""
            return self.redirect(home + (f"?{urlencode({'next': way})}" if way else ""), status=303)
        seat = self.seats.of_token(self.get_cookie(COOKIE))
        way = self.get_query_argument("next", "")
        # who asks for another address may want to open another seat
        is_own = not way or (seat and way.startswith(f"{seat['path']}/"))
        # a page of a seat that was open before could read where this leads
        if seat and is_own and self.request.headers.get("Sec-Fetch-Site", "none") != "same-origin":
            return self.redirect(own_way(seat["path"], way), status=303)
        self.show_start(said=self.get_query_argument("said", ""), way=way)

    head = get

    def post(self):
        self.not_here()

    put = patch = delete = options = post


class Login(Page):
    """Also of a seat's own login page, so that clients of Jupyter's can log in as they are used to."""

    def get(self):
        if not self.is_navigation:
            return self.not_here()
        self.show_start(way=self.get_query_argument("next", ""))

    async def post(self):
        if self.comes_from_elsewhere:
            return self.show_start(403, error=FOREIGN)
        try:
            form = parse_qs(self.request.body.decode(errors="replace"), max_num_fields=20)
        except ValueError:
            form = {}
        typed = form.get("password", [""])[0][:LONGEST_PASSWORD]
        way = form.get("next", [self.get_query_argument("next", "")])[0]
        address = self.request.headers.get("X-Forwarded-For", "").rpartition(",")[2].strip()
        wait = self.service.limits.take(address)
        if wait is None:
            self.set_header("Retry-After", "60")
            return self.show_start(429, error=TOO_MANY, way=way)
        if wait:
            await asyncio.sleep(wait)
        seat = self.seats.of_password(typed)
        if not seat:
            return self.show_start(401, error=WRONG, way=way)
        self.service.limits.give_back(address)
        self.open_seat(seat, own_way(seat["path"], way))


def parts(address):
    """The parts of an address; all are empty if it is none."""
    try:
        return urlsplit(address)
    except ValueError:  # a bracket that is not closed
        return urlsplit("")


def own_way(path, asked):
    """Where a login leads: where it was asked to, if that is below the seat's own path; else to its first page."""
    leads_out = parts(asked).path in (f"{path}/login", f"{path}/logout")
    if not leads_out and asked.startswith(f"{path}/") and re.fullmatch(r"[!-\[\]-~]+", asked) and "/." not in asked:
        return asked
    return f"{path}/"


class Enter(Page):
    """At a seat's own host: the ticket of a login opens it."""

    def get(self):
        token = way = ""
        # the form leads here from the class's address; a link of somebody else's would open that one's seat
        site = self.request.headers.get("Sec-Fetch-Site", "same-site")
        if self.is_navigation and site in ("same-site", "same-origin"):
            token, way = self.service.tickets.redeem(self.get_query_argument("ticket", ""))
        seat = self.seats.of_host(self.request.host)
        if not seat or not token or not hmac.compare_digest(seat["token"], token):
            return self.redirect(f"https://{self.seats.address}/", status=303)
        self.hold(token)
        self.redirect(way, status=303)


class Logout(Page):
    def get(self):
        if not self.is_navigation or self.comes_from_elsewhere:
            return self.not_here()
        self.hold("", life=0)
        home = f"https://{self.seats.address}/" if self.seats.by_name else "/"
        self.redirect(f"{home}?said=out", status=303)


class Starting(Page):
    """In place of a proxy's error: the seat's server does not answer yet."""

    def get(self):
        self.set_header("Retry-After", "3")
        if not self.is_navigation:
            self.set_status(503)
            self.set_header("Content-Type", "text/plain; charset=utf-8")
            return self.finish("The seat is starting.\n")
        self.set_header("Refresh", "3")
        self.show("starting", 503)

    head = get


class Style(Page):
    def get(self):
        self.set_header("Content-Type", "text/css; charset=utf-8")
        self.set_header("Cache-Control", "max-age=3600")
        self.finish(self.service.style)
