"""The images on top of PyData, built where no registry answers, and used in seats as a class would."""

from __future__ import annotations

import io
from pathlib import Path

import docker
import pytest

from tests.hosts.conftest import MARTY, STATE, Roster, seat_containers
from tests.lab.engine import LabEngine
from tests.lab.jupyter_client import Student
from tests.lab.lesson import printed, run_lesson
from tests.lab.namespace import outside
from tests.lab.tool import Result, Tool

MIB = 1 << 20
# pip and apt are reached from the machine's own network alone: nothing of a build needs the engine's
TEXT = "with open('text.txt', 'w') as file:\n    file.writelines(f'to be or not to be {n}\\n' for n in range(50_000))"
SESSION = "from pyspark.sql import SparkSession\nspark = SparkSession.builder.getOrCreate()\n"
COUNT = """
words = spark.sparkContext.textFile('text.txt').flatMap(str.split)
counts = dict(words.map(lambda word: (word, 1)).reduceByKey(lambda a, b: a + b).collect())
print(counts['to'], counts['not'], counts['7'])
"""
HEAP = "print(spark._jvm.java.lang.Runtime.getRuntime().maxMemory(), spark.sparkContext.defaultParallelism)"
KILLED = "cat /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control 2>/dev/null | grep '^oom_kill '"


def build(engine: LabEngine, *words: str) -> Result:
    with outside():
        return Tool(engine, STATE / "build-home", {})("image_build", *words)


@pytest.fixture(scope="module")
def pydata(engine: LabEngine) -> str:
    """The project's own notebook image, built as a user builds it where no registry answers."""
    built = build(engine, "pydata")
    assert built.code == 0, built.err
    return built.out.strip()


@pytest.fixture(scope="module")
def spark(engine: LabEngine, pydata: str) -> str:
    built = build(engine, "spark")
    assert built.code == 0, built.err
    return "spark"


@pytest.fixture(scope="module")
def ml(engine: LabEngine, pydata: str) -> str:
    built = build(engine, "ml")
    assert built.code == 0, built.err
    return "ml"


def in_seat(tool: Tool, *cells: str) -> list[str]:
    """What the cells of a notebook print in the one seat."""
    done = tool("com_containers", run_lesson(*cells), "--format", "json")
    assert done.code == 0, done.out
    return list(printed(done.rows[0]["stdout"]))


def test_a_cell_of_the_courses_kind_runs_in_a_seat(tool: Tool, roster: Roster, pydata: str) -> None:
    tool.launch(*roster(MARTY), "--image", pydata)
    cell = (
        "import numpy, scipy.stats, pandas, matplotlib.pyplot as plt, seaborn, bokeh.plotting\n"
        "frame = pandas.DataFrame({'x': numpy.arange(9.0), 'y': numpy.arange(9.0) ** 2})\n"
        "seaborn.lineplot(frame, x='x', y='y'); plt.savefig('plot.png')\n"
        "print(int(frame.y.sum()), scipy.stats.pearsonr(frame.x, frame.x)[0] > 0.99)\n"
    )
    cython = "%load_ext Cython\n", "%%cython\ndef twice(int n): return 2 * n\n", "print(twice(21))\n"
    done = tool("com_containers", f"{run_lesson(cell, *cython)}\nhead -c 4 plot.png | tail -c 3")
    assert done.code == 0, done.out
    assert '"204 True\\n"' in done.out and '"42\\n"' in done.out and done.out.rstrip().endswith("PNG")


def test_what_a_browser_saves_lies_on_the_volume_and_the_home_does_not_grow(
    tool: Tool, roster: Roster, pydata: str
) -> None:
    row = tool.launch(*roster(MARTY), "--image", pydata).rows[0]
    Student(row["url"], row["password"]).save("notes.txt", "hi")
    done = tool("com_containers", "cat ~/work/notes.txt; id -un; tr '\\0' ' ' </proc/1/cmdline")
    assert done.out.splitlines()[1:] == ["hijovyan", "tini -g -- jupyter lab "]


def test_an_image_without_jupyter_and_one_that_cannot_be_pulled(tool: Tool, roster: Roster, pydata: str) -> None:
    file = roster(MARTY)
    absent = tool("themachine", *file, "--image", "quay.io/jupyter/scipy-notebook:2025-03-14")
    assert absent.code == 1 and "can't be pulled" in absent.err and "image_build" in absent.err
    empty = tool("themachine", *file, "--image", "cloudscale/base:13")
    assert empty.code == 1 and "has no Jupyter" in empty.err
    wrong = tool("themachine", *file, "--image", "Not A Name")
    assert wrong.code == 2 and "is not a valid image name" in wrong.err
    assert tool("status", "--format", "json").rows == []


STACKS = """
FROM {image}
USER root
RUN groupadd --system --gid 101 users-like && usermod --gid 100 jovyan && chown -R 1000:100 /home/jovyan \\
 && printf '#!/bin/bash\\nexec "$@"\\n' >/usr/local/bin/start.sh && chmod +x /usr/local/bin/start.sh \\
 && printf 'c = get_config()\\nc.ServerApp.ip = "127.0.0.1"\\n' >/etc/jupyter/jupyter_server_config.py
ENV NB_USER=jovyan NB_UID=1000 NB_GID=100 JUPYTER_PORT=8888
ENTRYPOINT ["tini", "-g", "--", "start.sh"]
CMD ["start-notebook.py"]
HEALTHCHECK --interval=1s --timeout=1s --retries=1 CMD false
USER 1000
WORKDIR /home/jovyan
"""


def test_an_image_laid_out_as_the_docker_stacks_is_started_by_the_same_code(
    engine: LabEngine, tool: Tool, roster: Roster, pydata: str
) -> None:
    # the real ones can't be pulled where there is no registry: the same entry point, group, configuration
    # file and folders, and a health check that would kill the server at once
    content = io.BytesIO(STACKS.format(image=pydata).encode())
    engine.client.images.build(fileobj=content, tag="stacks:test", rm=True, forcerm=True)
    try:
        (row,) = tool.launch(*roster(MARTY), "--image", "stacks:test").rows
        student = Student(row["url"], row["password"])
        assert student.save("work.txt", "kept") == 201
        seen = tool("com_containers", "cat ~/work/work.txt; id -g; tr '\\0' ' ' </proc/1/cmdline")
        assert seen.out.splitlines()[1:] == ["kept100", "tini -g -- start.sh jupyter lab "]
        (container,) = engine.client.containers.list()
        assert container.attrs["Config"]["Healthcheck"]["StartPeriod"] == 600 * 10**9
    finally:
        tool("containers_reset", "--yes")
        engine.client.images.remove("stacks:test")


def test_spark_counts_words_in_a_cell_and_with_spark_submit_in_the_memory_of_a_seat(
    tool: Tool, roster: Roster, client: docker.DockerClient, spark: str
) -> None:
    file = roster(MARTY)
    tool.launch(*file, "--image", spark, INVOKE_CLOUDSCALE_SEAT_MEMORY="1G", INVOKE_CLOUDSCALE_SEAT_CPUS="2")
    seat = seat_containers(client)
    *_, counted, heap = in_seat(tool, TEXT, SESSION + COUNT, HEAP)
    assert counted == "100000 50000 1\n"
    size, cores = map(int, heap.split())
    assert 450 * MIB < size <= 512 * MIB and cores == 2

    script = f"cat >count.py <<'END'\n{SESSION}{COUNT}{HEAP}\nEND\nspark-submit count.py 2>log || cat log"
    submitted = tool("com_containers", f"{script}\n{KILLED}", "--format", "json").rows[0]["stdout"]
    assert submitted == f"100000 50000 1\n{size} 2\noom_kill 0\n"
    assert seat_containers(client) == seat

    # twice the memory: twice the heap, of the Java machine that a session starts
    tool.launch(*file, "--image", spark, INVOKE_CLOUDSCALE_SEAT_MEMORY="2G")
    machine = (
        "from pyspark.java_gateway import launch_gateway; java = launch_gateway().jvm.java.lang.Runtime.getRuntime()"
    )
    done = tool("com_containers", f"python -c '{machine}; print(java.maxMemory(), java.availableProcessors())'")
    size, cores = map(int, done.out.splitlines()[1].split())
    assert 950 * MIB < size <= 1024 * MIB and cores == 1


def test_models_are_fitted_in_a_seat(tool: Tool, roster: Roster, ml: str) -> None:
    tool.launch(*roster(MARTY), "--image", ml)
    data = (
        "from sklearn.datasets import load_breast_cancer\n"
        "from sklearn.model_selection import train_test_split\n"
        "x, y = load_breast_cancer(return_X_y=True, as_frame=True)\n"
        "x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0)\n"
    )
    models = (
        "from sklearn.ensemble import RandomForestClassifier\n"
        "from lightgbm import LGBMClassifier\n"
        "for model in (RandomForestClassifier(50, random_state=0), LGBMClassifier(n_estimators=50, verbose=-1)):\n"
        "    print(model.fit(x_train, y_train).score(x_test, y_test) > 0.95)\n"
    )
    regression = (
        "import numpy, statsmodels.api as sm\n"
        "at = numpy.arange(20.0)\n"
        "print(sm.OLS(3 * at + 2, sm.add_constant(at)).fit().params.round(6).tolist())\n"
    )
    rest = (
        "import matplotlib.pyplot as plt\n"
        "from imblearn.over_sampling import SMOTE\n"
        "from mlxtend.plotting import plot_decision_regions\n"
        "from sklearn.svm import SVC\n"
        "balanced = SMOTE(random_state=0).fit_resample(x, y)[1]\n"
        "print(balanced.value_counts().nunique())\n"
        "two = x.iloc[:, :2].to_numpy()\n"
        "plot_decision_regions(two, y.to_numpy(), clf=SVC().fit(two, y)); plt.savefig('regions.png')\n"
    )
    assert in_seat(tool, data, models, regression, rest) == ["", "True\nTrue\n", "[2.0, 3.0]\n", "1\n"]


def test_a_trainers_own_requirements_go_on_top_and_nothing_below_changes(
    engine: LabEngine, tool: Tool, roster: Roster, client: docker.DockerClient, ml: str, tmp_path: Path
) -> None:
    folder = tmp_path / "My Course"
    folder.mkdir()
    (folder / "requirements.txt").write_text("humanize\nnumpy<2\n")
    refused = build(engine, "my-course", "--from", str(folder), "--on", ml)
    assert refused.code == 1 and "numpy<2" in refused.err and "conflict" in refused.err

    (folder / "requirements.txt").write_text("humanize\nnumpy\n")
    built = build(engine, "my-course", "--from", str(folder), "--on", ml)
    assert (built.code, built.out) == (0, "cloudscale/my-course:latest\n"), built.err
    try:
        tool.launch(*roster(MARTY), "--image", "my-course")
        assert in_seat(tool, "import humanize, sklearn; print(humanize.intcomma(10**6))") == ["1,000,000\n"]
        kept = tool("com_containers", "cat /usr/share/cloudscale/requirements.txt; pip check", "--format", "json")
        assert kept.code == 0 and "humanize==" in kept.rows[0]["stdout"] and "lightgbm==" in kept.rows[0]["stdout"]
        listed = {row["image"]: row for row in tool("image_list", "--format", "json").rows}
        assert listed["my-course"]["machines"] and listed["my-course"]["shared"] == listed[ml]["size"]
        assert listed[ml]["size"] - listed[ml]["shared"] < 200 * MIB
    finally:
        tool("containers_reset", "--yes")
        client.images.remove(built.out.strip(), force=True)


def test_a_trainers_own_dockerfile_is_built_and_has_to_have_jupyter(
    engine: LabEngine, pydata: str, client: docker.DockerClient, tmp_path: Path
) -> None:
    (tmp_path / "greeting.txt").write_text("hello")
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE\nFROM ${BASE}\nCOPY greeting.txt /opt/\nRUN grep -q hello /opt/greeting.txt\n"
    )
    try:
        assert build(engine, "greeting", "--from", str(tmp_path)).out == "cloudscale/greeting:latest\n"
        assert "is up to date" in build(engine, "greeting", "--from", str(tmp_path)).err
        (tmp_path / "Dockerfile").write_text("FROM cloudscale/base:13\n")
        without = build(engine, "greeting", "--from", str(tmp_path))
        assert without.code == 1 and "has no Jupyter" in without.err
    finally:
        client.images.remove("cloudscale/greeting:latest", force=True)


def test_an_image_that_is_not_built_is_reported_with_the_remedy(tool: Tool, roster: Roster, tmp_path: Path) -> None:
    absent = tool("themachine", *roster(MARTY), "--image", "cloudscale/nobodys:latest")
    assert absent.code == 2 and "invoke image_build nobodys" in absent.err
    taken = tool("image_build", "spark", "--from", str(tmp_path))
    assert taken.code == 2 and "neither a requirements.txt nor a Dockerfile" in taken.err
    assert tool("status", "--format", "json").rows == []
