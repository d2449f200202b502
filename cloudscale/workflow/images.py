"""`image_build` and `image_list`: the notebook images."""

from __future__ import annotations

from cloudscale.cli import report
from cloudscale.cli.report import Report
from cloudscale.cluster.look import look
from cloudscale.course.session import Session
from cloudscale.engines.client import trainers_engine
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.images import build, listing, own, recipes
from cloudscale.images.on_engine import look_inside
from cloudscale.outside import home_path


def image_build(session: Session, name: str, folder: str | None, on: str | None) -> Report:
    """Builds a notebook image on the trainer's own engine: one of the project's, or what a trainer's folder has."""
    if on and not folder:
        raise RequestError("--on says what an image of your own stands on.", "Add --from FOLDER, or leave out --on.")
    recipe = recipes.own_recipe(home_path(folder), name, on or recipes.DEFAULT) if folder else recipes.find_recipe(name)
    if recipe.is_own and (unused := own.unused(recipe.folder)):
        session.progress.say(unused)
    engine = trainers_engine(session.progress.say)
    with session.progress.bar(f"Building {recipe.name}", 0):
        built = build.build(engine, recipe, session.progress.say)
        if recipe.is_own:
            look_inside(engine, built, built, session.settings.course)
    return Report(built)


def image_list(session: Session) -> Report:
    """The project's images and those that trainers built: which are built here, and on which machines they are."""
    here: dict[str, listing.Built] = {}
    say = None if session.settings.driver == "local" else session.progress.say  # that driver says so itself
    try:
        here = listing.built_on(trainers_engine(say))
    except EngineError as error:
        session.progress.say(f"The engine of this computer could not be asked for its images. {error}")
    on_machines: dict[str, dict[str, listing.Built]] = {}
    problems: tuple[str, ...] = ()
    try:
        cluster = look(session)
    except CloudscaleError as error:  # for example no cloud or no hosts yet
        problems = (f"The machines could not be read: {error}",)
    else:
        engines = session.selection.choose(list(cluster.engines.values()), lambda engine: (engine.name,))
        outcomes = fan_out(listing.built_on, engines, name=lambda engine: engine.name)
        on_machines = outcomes.values
        problems = (*cluster.problems(session.selection), *outcomes.problems)
    for line in listing.differing(here, on_machines):
        session.progress.say(line)
    return Report(report.images(listing.rows(here, on_machines), session.common.format), problems)
