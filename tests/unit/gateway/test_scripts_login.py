"""The login service: what it shows, whom it lets in, and whom it does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cloudscale.gateway import routes
from cloudscale.seats.address import Entrance
from tests.unit.conftest import Walls
from tests.unit.gateway.login_service import LoginService, script

PASSWORD = "ann-pass-word"
BROWSER = {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document", "Sec_Fetch_Site": "same-origin"}


@pytest.fixture
def service(tmp_path: Path, walls: Walls) -> Iterator[LoginService]:
    walls.reachable = lambda address: address == str(tmp_path / "login.sock")
    started = LoginService(tmp_path, Entrance("192.0.2.7"))
    yield started
    started.close()


@pytest.fixture
def by_name(tmp_path: Path, walls: Walls) -> Iterator[LoginService]:
    walls.reachable = lambda address: address == str(tmp_path / "login.sock")
    started = LoginService(tmp_path, Entrance("class.test", by_name=True))
    yield started
    started.close()


def test_both_sides_have_the_same_name_for_the_cookie() -> None:
    assert script("login").COOKIE == routes.COOKIE


# --- the start page --------------------------------------------------------------------------


def test_the_start_page_has_one_field_and_no_script(service: LoginService) -> None:
    page = service.get("/")
    assert page.status == 200
    assert page.text.count("<input") == 1 + page.text.count('type="hidden"')
    assert "Bio &amp; Chem" in page.text
    assert "<script" not in page.text and "http" not in page.text.replace("http-equiv", "")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert page.headers["X-Frame-Options"] == "DENY"
    assert page.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/annpath/lab", "/nowhere", "/annpath/lab?x=%3Cscript%3E", "/%ff%fe", "//evil.test/"])
def test_any_other_address_leads_to_it_and_does_not_say_whether_it_exists(service: LoginService, path: str) -> None:
    answer = service.get(path, **BROWSER)
    assert answer.status == 303 and answer.headers["Location"].startswith("/?next=")
    page = service.get(answer.headers["Location"])
    assert page.status == 200 and "<script" not in page.text


def test_what_is_no_navigation_is_asked_to_log_in(service: LoginService) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        assert service.ask(method, "/annpath/api/contents", Sec_Fetch_Mode="cors").status == 401


def test_whoever_has_a_seat_is_led_there(service: LoginService) -> None:
    cookie = f"{routes.COOKIE}=anntoken"
    assert service.get("/", Cookie=cookie).headers["Location"] == "/annpath/"
    assert service.get("/?next=/annpath/tree", Cookie=cookie).headers["Location"] == "/annpath/tree"
    assert service.get("/?next=/bobpath/lab", Cookie=cookie).status == 200  # she may want to open another seat
    assert service.get("/", Cookie=f"{routes.COOKIE}=wrong").status == 200
    assert service.get("/", Cookie=cookie, Sec_Fetch_Site="same-origin").status == 200  # a page could read where


# --- a login ---------------------------------------------------------------------------------


@pytest.mark.parametrize("typed", [PASSWORD, "ANN PASS WORD", " annpassword ", "Ann-pass-word"])
def test_a_password_opens_its_seat_however_it_is_typed(service: LoginService, typed: str) -> None:
    answer = service.log_in(typed, **BROWSER)
    assert (answer.status, answer.headers["Location"]) == (303, "/annpath/")
    (cookie,) = answer.cookies
    assert cookie.startswith(f"{routes.COOKIE}=anntoken; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=")
    assert answer.headers["Clear-Site-Data"] == '"storage"'


@pytest.mark.parametrize("typed", ["", "wrong", "annpassworx", "x" * 5000, "\x00", "é"])
def test_a_wrong_one_opens_nothing_and_says_so(service: LoginService, typed: str) -> None:
    answer = service.log_in(typed)
    assert answer.status == 401 and not answer.cookies
    assert "not the password of a seat" in answer.text


def test_the_cookies_of_the_seat_before_are_taken_away(service: LoginService) -> None:
    answer = service.log_in(PASSWORD, Cookie=f"planted=1; _xsrf=2; {routes.COOKIE}=bobtoken")
    gone = {cookie.partition("=")[0] for cookie in answer.cookies if "Max-Age=0" in cookie}
    assert gone == {"planted", "_xsrf"}


@pytest.mark.parametrize(
    ("asked", "way"),
    [
        ("/annpath/lab/tree/a.ipynb", "/annpath/lab/tree/a.ipynb"),
        ("/bobpath/lab", "/annpath/"),
        ("https://evil.test/", "/annpath/"),
        ("//evil.test/annpath/", "/annpath/"),
        ("/annpath/../bobpath/", "/annpath/"),
        ("/annpath/\\evil", "/annpath/"),
        ("/annpath/logout", "/annpath/"),
        ("/annpath/login?next=x", "/annpath/"),
        ("/annpath/\r\nSet-Cookie: x=1", "/annpath/"),
    ],
)
def test_a_login_leads_into_its_own_seat_alone(service: LoginService, asked: str, way: str) -> None:
    assert service.log_in(PASSWORD, way=asked).headers["Location"] == way


def test_clients_that_log_in_as_to_jupyter_get_in(service: LoginService) -> None:
    assert service.log_in(PASSWORD, "/annpath/login").headers["Location"] == "/annpath/"
    assert service.get("/annpath/login").status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
    ],
)
def test_a_page_of_somebody_elses_can_log_nobody_in(service: LoginService, headers: dict[str, str]) -> None:
    answer = service.log_in(PASSWORD, **headers)
    assert answer.status == 403 and not answer.cookies


def test_a_logout_takes_the_seat_from_the_browser(service: LoginService) -> None:
    answer = service.get("/annpath/logout", Cookie=f"{routes.COOKIE}=anntoken", **BROWSER)
    assert answer.headers["Location"] == "/?said=out"
    assert any(cookie.startswith(f"{routes.COOKIE}=; ") and "Max-Age=0" in cookie for cookie in answer.cookies)


# --- guesses ---------------------------------------------------------------------------------


def test_guesses_run_out_for_one_address_and_not_for_another(service: LoginService) -> None:
    limits = script("limits")
    bucket = service.service.limits
    for _ in range(int(limits.EACH[0]) + limits.WAITING):
        assert bucket.take("192.0.2.66") is not None
    refused = service.log_in("wrong", X_Forwarded_For="192.0.2.66")
    assert refused.status == 429 and refused.headers["Retry-After"]
    assert service.log_in(PASSWORD, X_Forwarded_For="192.0.2.67").status == 303
    service.time.now += 3600
    assert service.log_in(PASSWORD, X_Forwarded_For="192.0.2.66").status == 303


def test_who_sets_the_header_of_the_proxy_is_still_known_by_the_last_entry(service: LoginService) -> None:
    taken = service.service.limits
    service.log_in("wrong", X_Forwarded_For="203.0.113.1, 192.0.2.66")
    assert [*taken._of] == ["192.0.2.66"]


# --- a name for each seat --------------------------------------------------------------------


def test_a_ticket_leads_to_the_seats_own_host_once(by_name: LoginService) -> None:
    answer = by_name.log_in(PASSWORD)
    host, _, rest = answer.headers["Location"].removeprefix("https://").partition("/")
    assert host == "annlabel.class.test" and not answer.cookies
    assert by_name.get(f"/{rest}", host="boblabel.class.test").headers["Location"] == "https://class.test/"
    answer = by_name.log_in(PASSWORD)
    rest = answer.headers["Location"].partition(".test/")[2]
    entered = by_name.get(f"/{rest}", host=host, Sec_Fetch_Site="same-site")
    assert entered.headers["Location"] == "/annpath/"
    assert any(cookie.startswith(f"{routes.COOKIE}=anntoken; ") for cookie in entered.cookies)
    again = by_name.get(f"/{rest}", host=host, Sec_Fetch_Site="same-site")
    assert again.headers["Location"] == "https://class.test/" and not again.cookies


def test_a_ticket_ends_soon_and_is_for_no_link(by_name: LoginService) -> None:
    for change in ("late", "link"):
        rest = by_name.log_in(PASSWORD).headers["Location"].partition(".test/")[2]
        by_name.time.now += 60 if change == "late" else 0
        site = "same-site" if change == "late" else "cross-site"
        answer = by_name.get(f"/{rest}", host="annlabel.class.test", Sec_Fetch_Site=site)
        assert answer.headers["Location"] == "https://class.test/" and not answer.cookies


# --- a seat that starts ----------------------------------------------------------------------


def test_a_seat_that_starts_says_so_and_comes_by_itself(service: LoginService) -> None:
    page = service.get("/.gateway/starting", **BROWSER)
    assert (page.status, page.headers["Refresh"]) == (503, "3")
    program = service.get("/.gateway/starting", Sec_Fetch_Mode="cors")
    assert (program.status, program.text) == (503, "The seat is starting.\n")
