"""Every command of the project: ``nox -l`` lists them, ``nox -s docs`` runs one."""

import importlib.metadata
import os
import shutil
import site
from pathlib import Path

import nox
from packaging.utils import canonicalize_name

nox.needs_version = ">=2024.10"
nox.options.sessions = ["docs"]
nox.options.reuse_existing_virtualenvs = True

ROOT = Path(__file__).parent
BUILD = ROOT / "_build"
HTML = BUILD / "html"
EDITIONS = {"en": "en", "zh": "zh_CN"}  # the folder of each language
PYPROJECT = nox.project.load_toml("pyproject.toml")

# Warnings and broken references are errors, and all of them are shown, with tracebacks; beside them
# only the pages as they run (book/_ext/progress.py).
SPHINX = ["-c", ".", "-n", "-W", "--keep-going", "-T", "-q"]


def edition(folder: str, *options: str) -> list[str]:
    """What builds one language; what a cell printed for one is there for the next."""
    own = ["-d", f"_build/doctrees/{folder}", "-D", f"language={EDITIONS[folder]}"]
    return [*SPHINX, *own, *options, "book/en", f"_build/html/{folder}"]


# ATTNMEM_USE_INSTALLED=1: take what the Python that runs nox has installed (a torch built for
# this machine's GPU, say), and install only what is missing.
USE_INSTALLED = os.environ.get("ATTNMEM_USE_INSTALLED", "0") not in ("", "0")
nox.options.envdir = ".nox/installed" if USE_INSTALLED else ".nox"


@nox.session
def docs(session: nox.Session) -> None:
    """Build the book in both languages, running its cells once; -- en: in one."""
    folders = session.posargs or [*EDITIONS]
    if wrong := {*folders} - EDITIONS.keys():
        session.error(f"there are the languages {' and '.join(EDITIONS)}, not {', '.join(wrong)}")
    install(session, "docs")
    alone = ["-D", f"editions={EDITIONS[folders[0]]}"] if len(folders) == 1 else []
    for folder in folders:
        session.run("python", "-m", "sphinx", *edition(folder, *alone))
    if not alone:
        shutil.copy(ROOT / "book" / "languages.html", HTML / "index.html")  # leads into one
    for folder in folders:
        session.log(f"The book: {(HTML / folder / 'index.html').as_uri()}")


@nox.session(name="docs-live")
def docs_live(session: nox.Session) -> None:
    """Rebuild the book at every save and show it in a browser; -- --port 8001 …"""
    install(session, "docs")
    live = ["-c", ".", "--open-browser", "--watch", "attnmem", "--watch", "conf.py"]
    live += ["-D", "editions=en"]
    pages = ["book/en", "_build/live"]
    session.run("python", "-m", "sphinx_autobuild", *live, *pages, *session.posargs)


@nox.session
def translate(session: nox.Session) -> None:
    """Merge what has changed in the English pages into the catalogues of the other languages."""
    without_arguments(session)
    install(session, "docs")
    catalogues = BUILD / "gettext"
    shutil.rmtree(catalogues, ignore_errors=True)
    day = {"SOURCE_DATE_EPOCH": "0"}  # no day: only what has changed is written
    options = [*SPHINX, "-d", "_build/doctrees/gettext", "-b", "gettext"]
    session.run("python", "-m", "sphinx", *options, "book/en", str(catalogues), env=day)
    (catalogues / "reference.pot").unlink()  # docstrings stay English
    answers = BUILD / "answers"  # what check says is the package's, compiled, as gettext wants it
    answers.mkdir(exist_ok=True)
    (catalogues / "exercises.pot").replace(answers / "exercises.pot")
    languages = [f"-l{language}" for language in EDITIONS.values() if language != "en"]
    for found, folder in ((catalogues, "book/locale"), (answers, "attnmem/locale")):
        merge = ["-p", str(found), "-d", folder, "-w", "0", "--no-obsolete"]
        session.run("sphinx-intl", "update", *merge, *languages, env=day)
    session.run("sphinx-intl", "build", "-d", "attnmem/locale", *languages)


@nox.session
def linkcheck(session: nox.Session) -> None:
    """Ask for every page elsewhere that the book links to; needs network."""
    without_arguments(session)
    install(session, "docs")
    options = [*SPHINX, "-d", "_build/doctrees/en", "-b", "linkcheck"]
    session.run("python", "-m", "sphinx", *options, "book/en", str(BUILD / "links"))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the tests; what follows -- goes to pytest: nox -s tests -- -k memory."""
    install(session, "tests")
    session.run("python", "-m", "pytest", "-n", "auto", "--dist", "worksteal", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting, types, and which way imports run."""
    without_arguments(session)
    install(session, "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def measure(session: nox.Session) -> None:
    """Measure this machine's GPU and record it: the book's grid; -- --help lists what else."""
    install(session, "measure")
    kept = {"TORCH_CUBLAS_WORKSPACE_CACHE": "1"}  # from PyTorch 2.15 on: as a trace expects it
    session.run("python", "-m", "attnmem", "measure", *session.posargs, env=kept)


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with PyTorch's MemTracker, a textbook formula and this CPU; -- --all: no sample."""
    install(session)
    session.run("python", "benchmarks/textbook.py")
    session.run("python", "benchmarks/cpu.py", *session.posargs)
    session.run("python", "benchmarks/memtracker.py", *session.posargs)


@nox.session
def dist(session: nox.Session) -> None:
    """Pack what a release has: the package's sdist and wheel, and the book that docs has built."""
    without_arguments(session)
    if not all((HTML / folder / "index.html").exists() for folder in EDITIONS):
        session.error("dist packs the built book: run nox -s docs first")
    session.install("-c", "constraints.txt", "build")
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    session.run("python", "-m", "build")
    pages = Path(session.create_tmp(), "book")  # without what the cells gave them
    shutil.rmtree(pages, ignore_errors=True)
    shutil.copytree(HTML, pages, ignore=shutil.ignore_patterns("jupyter_execute"))
    shutil.make_archive("dist/attnmem-book", "zip", pages)


@nox.session
def wheels(session: nox.Session) -> None:
    """Collect every package that the sessions install, for a machine without network."""
    without_arguments(session)
    needed = [
        "nox",
        *PYPROJECT["build-system"]["requires"],
        *PYPROJECT["project"]["dependencies"],
    ]
    needed += nox.project.dependency_groups(PYPROJECT, *PYPROJECT["dependency-groups"])
    session.run("pip", "download", "-c", "constraints.txt", "-d", "_build/wheels", *needed)


@nox.session(venv_backend="none")
def clean(session: nox.Session) -> None:
    """Delete the built book and what was kept of its executions."""
    without_arguments(session)
    for folder in (BUILD, ROOT / "book" / "en" / "reference"):
        shutil.rmtree(folder, ignore_errors=True)


def without_arguments(session: nox.Session) -> None:
    """Answer an argument that the session does not take with its usage."""
    if session.posargs:
        session.error(
            f"{session.name} takes no arguments, got {' '.join(session.posargs)!r}. "
            f"Usage: nox -s {session.name} (nox -l lists all sessions)"
        )


def install(session: nox.Session, *groups: str) -> None:
    """Install the package and dependency groups, pinned; nothing if that was done before."""
    pins = (ROOT / "constraints.txt").read_text()
    if USE_INSTALLED:
        # Unlike --system-site-packages, this also reaches what a virtual environment has.
        where = "import sysconfig; print(sysconfig.get_path('purelib'))"
        folder = session.run("python", "-c", where, silent=True, log=False)
        Path(folder.strip(), "installed.pth").write_text("\n".join(site.getsitepackages()))
        installed = {canonicalize_name(found.name) for found in importlib.metadata.distributions()}
        pins = "".join(
            line
            for line in pins.splitlines(keepends=True)
            if canonicalize_name(line.partition("==")[0]) not in installed
        )
    requirements = nox.project.dependency_groups(PYPROJECT, *groups)
    done = Path(session.virtualenv.location, "installed.txt")
    state = "\n".join([pins, *requirements, *PYPROJECT["project"]["dependencies"]])
    if done.exists() and done.read_text() == state:
        return
    constraints = Path(session.create_tmp(), "constraints.txt")
    constraints.write_text(pins)
    session.install("-c", str(constraints), "-e", ".", *requirements)
    done.write_text(state)
