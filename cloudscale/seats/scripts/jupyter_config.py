"""Runs in each student's server, before it starts, as a configuration file of Jupyter's.

Others must not learn the path of the server's address: it keeps cookies apart where many servers share one host name.
Jupyter's own answer to any other address has it in its page, in a header and in a cookie. And a request with a large
body is refused before the login: Jupyter reads it whole before it looks at who asks.
"""

from jupyter_server import serverapp
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine
from tornado.web import RequestHandler, decode_signed_value

SMALL = 64 * 1024  # bytes that anybody may send


class Outside(RequestHandler):
    """The answer to every address that is not under the server's path. It says nothing."""

    def check_xsrf_cookie(self):
        """Nothing is done here that would need it."""

    def prepare(self):
        if self.request.path + "/" == self.settings["base_url"]:
            self.redirect(self.settings["base_url"])
        else:
            self.set_status(404)
            self.finish("Not found")


class TooLarge(HTTPMessageDelegate):
    """Reads a request to its end, keeps nothing of it, and refuses it."""

    def __init__(self, connection):
        self._connection = connection

    def finish(self):
        headers = HTTPHeaders({"Content-Length": "0", "Connection": "close"})
        self._connection.write_headers(ResponseStartLine("HTTP/1.1", 413, "Log in first"), headers)
        self._connection.finish()


def is_large(headers):
    length = headers.get("Content-Length", "0")
    return "Transfer-Encoding" in headers or not length.isdigit() or int(length) > SMALL


def is_logged_in(request, settings):
    """Whether the request has a cookie that this server signed: it signs that of a login, and no other."""
    return any(
        decode_signed_value(settings["cookie_secret"], name, cookie.value, max_age_days=1)
        for name, cookie in request.cookies.items()
    )


class Application(serverapp.ServerWebApplication):
    def find_handler(self, request, **kwargs):
        if not request.path.startswith(self.settings["base_url"]):
            return self.get_handler_delegate(request, Outside)
        if is_large(request.headers) and not is_logged_in(request, self.settings):
            return TooLarge(request.connection)
        return super().find_handler(request, **kwargs)


serverapp.ServerWebApplication = Application
