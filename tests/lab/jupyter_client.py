"""A student with a browser: logs in to a Jupyter server over HTTP, as the login page does."""

from __future__ import annotations

import requests

TIMEOUT = 30  # seconds


class Student:
    """A session with one server. `password` None: somebody who never logs in. `authority`: a file to trust."""

    def __init__(self, url: str, password: str | None, authority: str | None = None) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        if authority:
            self._session.verify = authority
        if password is not None:
            self._session.get(f"{url}/login", timeout=TIMEOUT).raise_for_status()
            self._session.post(
                f"{url}/login",
                data={"password": password, "_xsrf": self._xsrf()},
                timeout=TIMEOUT,
                allow_redirects=False,
            )

    def _xsrf(self) -> str:
        return str(self._session.cookies.get("_xsrf") or "")

    @property
    def is_let_in(self) -> bool:
        # a gateway leads whoever is not to its start page
        answer = self._session.get(f"{self._url}/api/contents", timeout=TIMEOUT, allow_redirects=False)
        return answer.status_code == 200

    def save(self, name: str, text: str) -> int:
        """Saves a text file, and returns the server's status."""
        answer = self._session.put(
            f"{self._url}/api/contents/{name}",
            json={"type": "file", "format": "text", "content": text},
            headers={"X-XSRFToken": self._xsrf()},
            timeout=TIMEOUT,
        )
        return answer.status_code

    def read(self, name: str) -> str | None:
        answer = self._session.get(f"{self._url}/api/contents/{name}", timeout=TIMEOUT)
        return str(answer.json()["content"]) if answer.status_code == 200 else None
