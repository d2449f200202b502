"""Runs in each student's server, before it starts, as a configuration file of Jupyter's.

Others must not learn the path of the server's address: it keeps cookies apart where many servers share one host name.
Jupyter's own answer to any other address has it in its page, in a header and in a cookie. And a request with a large
body is refused before the login: Jupyter reads it whole before it looks at who asks.

Requests that come through the class's gateway show a secret: there, the student has logged in already. The trainer's
tool shows another one, and learns how many kernels run and when the seat was last used, and nothing else.

And what a student runs can gain no rights by setuid programs: engines before version 25 can't say that of a service. It
can't take its files out of the quota of its disk either, which Linux lets the owner of a file do.
"""

import ctypes
import hmac

from jupyter_server import serverapp
from jupyter_server.auth.identity import PasswordIdentityProvider
from tornado.httputil import HTTPHeaders, HTTPMessageDelegate, ResponseStartLine
from tornado.web import RequestHandler, decode_signed_value
from traitlets import Unicode

SMALL = 64 * 1024  # bytes that anybody may send
NO_NEW_PRIVILEGES = 38  # PR_SET_NO_NEW_PRIVS of linux/prctl.h; every process that this one starts inherits it

# of linux/prctl.h, linux/seccomp.h, linux/filter.h and linux/fs.h
SET_SECCOMP, FILTER = 22, 2
LOAD, IS, RETURN = 0x20, 0x15, 0x06
ALLOWED, REFUSED = 0x7FFF0000, 0x00050000 | 1  # with EPERM
NUMBER, SECOND = 0, 24  # in seccomp_data: the number of a system call, and its second argument
SET_ATTRIBUTES = 0x401C5820  # FS_IOC_FSSETXATTR, as the second argument of ioctl
IOCTL = (16, 29, 54, 0x40000202)  # its numbers on x86-64, ARM, in 32-bit programs, and in those of x32

PASS_HEADER = "X-Cloudscale-Seat"
STATUS_HEADER = "X-Cloudscale-Status"


class SeatIdentityProvider(PasswordIdentityProvider):
    """Asks for the password; but not whoever comes through the gateway, which is no way around Jupyter's XSRF check."""

    gateway_pass = Unicode("", config=True)

    def get_user(self, handler):
        if is_from_gateway(handler.request, self.gateway_pass) or asks_for_status(handler, self.gateway_pass):
            # one name for all requests, and for all windows of the student
            self._student = getattr(self, "_student", None) or self.generate_anonymous_user(handler)
            return self._student
        return super().get_user(handler)


def is_from_gateway(request, gateway_pass):
    shown = request.headers.get(PASS_HEADER, "")
    return bool(gateway_pass) and hmac.compare_digest(shown.encode(), gateway_pass.encode())


def asks_for_status(handler, gateway_pass):
    """Whether it is the trainer's tool, and it asks for api/status: which Jupyter does not count as use of the seat."""
    request, known = handler.request, hmac.digest(gateway_pass.encode(), b"status", "sha256").hex()
    shown = request.headers.get(STATUS_HEADER, "")
    is_status = (request.method, request.path) == ("GET", handler.settings["base_url"] + "api/status")
    return is_status and bool(gateway_pass) and hmac.compare_digest(shown.encode(), known.encode())


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
        if is_large(request.headers) and not self.knows(request):
            return TooLarge(request.connection)
        return super().find_handler(request, **kwargs)

    def knows(self, request):
        provider = self.settings["identity_provider"]
        return is_from_gateway(request, provider.gateway_pass) or is_logged_in(request, self.settings)


class Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("value", ctypes.c_uint)]


class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(Instruction))]


def keep_quota():
    """This process, and all that it starts, can't change the attributes of files by which quotas go."""
    steps = [
        Instruction(LOAD, 0, 0, NUMBER),
        # if it is one of them, on to the second load, past the tests that are left
        *(Instruction(IS, len(IOCTL) - at, 0, number) for at, number in enumerate(IOCTL)),
        Instruction(RETURN, 0, 0, ALLOWED),
        Instruction(LOAD, 0, 0, SECOND),
        Instruction(IS, 0, 1, SET_ATTRIBUTES),
        Instruction(RETURN, 0, 0, REFUSED),
        Instruction(RETURN, 0, 0, ALLOWED),
    ]
    filters = (Instruction * len(steps))(*steps)
    # a kernel without such filters has none of Docker's either: the quota is kept by who keeps to it
    ctypes.CDLL(None).prctl(SET_SECCOMP, FILTER, ctypes.byref(Program(len(steps), filters)), 0, 0)


if ctypes.CDLL(None).prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0):
    raise OSError("prctl(PR_SET_NO_NEW_PRIVS) failed")
keep_quota()
serverapp.ServerWebApplication = Application
get_config().ServerApp.identity_provider_class = SeatIdentityProvider  # noqa: F821
