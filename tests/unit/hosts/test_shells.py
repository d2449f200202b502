from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from cloudscale.hosts.shells import for_any_shell, quoted

SCRIPTS = [
    "echo out; echo err >&2; exit 3",
    "echo one!two '!x' \"!!\"\necho three",
    "printf '%s|' 'a\nb' \"it's\" '\\\\' '$HOME' `echo x` 100% \\\n  end\n",
    "# a comment\ncat",
    quoted(["sh", "-c", 'echo "$1" "$#"; cat', "cloudscale", "a'b\n!c \\ fällt\t*"]),
    'if [ -n "$HOME" ]; then for at in 1 2; do echo $at; done; fi | sort -r && echo {a,b} ~ &',
    "x='" + "y" * 20_000 + "'\n# ' \" `\necho ${#x}",
]


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "csh", "tcsh", "fish", "zsh", "ksh"])
@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_every_login_shell_passes_a_script_on_unchanged(shell: str, script: str) -> None:
    if not shutil.which(shell):
        pytest.skip(f"no {shell} on this computer")
    plain = subprocess.run(["sh", "-c", script], input=b"in", capture_output=True, check=False)
    done = subprocess.run([shell, "-c", for_any_shell(script)], input=b"in", capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)


@pytest.mark.parametrize("script", SCRIPTS, ids=range(len(SCRIPTS)))
def test_inside_the_quotes_is_nothing_that_a_shell_reads_in_its_own_way(script: str) -> None:
    line = for_any_shell(script)
    match = re.fullmatch(r"""exec /bin/sh -c 'eval "\$\(printf "([^'"!$`\n]*)"\)"'""", line)
    assert match
    assert not re.search(r"\\(?![0-7]{3})", match[1])


def test_words_are_quoted_where_they_need_it() -> None:
    assert quoted(["echo", "a b", "it's"]) == """echo 'a b' 'it'"'"'s'"""
