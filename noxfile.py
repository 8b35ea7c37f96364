"""Everything that can be run here, each in an environment of its own: `nox --list`, then `nox -s NAME`.

Every session installs with pip under constraints.txt, so that two people who run it have the same versions.
What follows `--` is passed on: `nox -s demo -- --spec vae`, `nox -s tests -- -k surface`.
"""

import nox

nox.options.default_venv_backend = "virtualenv"  # pip finds the CPU build of the pinned torch where uv finds only that with CUDA
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["lint", "tests"]
nox.needs_version = ">=2024.4.15"

# session -> the frameworks that must be there, as tests/conftest.py reads them from ISOFORM_FRAMEWORKS
ALONE = {"numpy": "numpy", "torch": "numpy,torch", "jax": "numpy,jax", "keras": "numpy,keras,tensorflow"}


def install(session: nox.Session, *extras: str, options: tuple[str, ...] = ()) -> None:
    wanted = f"[{','.join(extras)}]" if extras else ""
    session.install(*options, "-c", "constraints.txt", "-e", f".{wanted}")


@nox.session
def demo(session: nox.Session) -> None:
    """The main job at its quickest: verify every spec and implementation, time the VAE, write the page."""
    install(session, "all", options=("--no-compile",))  # Python compiles what is imported, a small part of what is installed,
    keep = {"PYTHONDONTWRITEBYTECODE": ""}  # once, whatever the environment says
    session.run("isoform", "run", "--level", "quick", "--out", "results/demo", *session.posargs, env=keep)


@nox.session
def verify(session: nox.Session) -> None:
    """Every check, in full."""
    install(session, "all")
    session.run("isoform", "verify", "--level", "report", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure, then hand it to pytest-benchmark: `nox -s bench -- --spec vae -- --benchmark-compare`; after the second -- is for pytest."""
    install(session, "all", "test")
    mine, theirs = session.posargs, []
    if "--" in mine:
        mine, theirs = mine[: mine.index("--")], mine[mine.index("--") + 1 :]
    session.run("isoform", "bench", "--level", "ci", "--out", "results/bench", *mine)
    session.run("isoform", "replay", "results/bench", "--benchmark-json=results/bench/pytest-benchmark.json", *theirs)


@nox.session
def gate(session: nox.Session) -> None:
    """Is the working tree slower than a revision, or wrong? Both measured now: `nox -s gate -- BASE_REV`; options: `isoform gate -h`."""
    if not session.posargs:
        session.error("which revision is the base? nox -s gate -- BASE_REV, for instance: nox -s gate -- origin/main")
    install(session, "all")
    session.run("isoform", "gate", "--out", "results/gate", *session.posargs)


@nox.session(name="gate-selftest")
def gate_selftest(session: nox.Session) -> None:
    """The gate on an unchanged tree, 20 times, and with 10 % more work planted in a step, 5 times. Half an hour of a quiet machine."""
    install(session)
    session.run("python", "-m", "tests.selftest", "gate", *(session.posargs or ["--out", "results/selftest"]))


@nox.session
def planted(session: nox.Session) -> None:
    """5 % more work planted in a step must be found with as many blocks as a report has, and nothing where nothing is planted."""
    install(session)
    session.run("python", "-m", "tests.selftest", "planted", *(session.posargs or ["--out", "results/selftest"]))


@nox.session
def tests(session: nox.Session) -> None:
    """The tests, with every framework installed: one that is missing is a failure, not a skip."""
    install(session, "all", "test", "equinox")
    session.run("pytest", *session.posargs)


def tests_alone(session: nox.Session) -> None:
    """The tests that make sense with only this framework installed."""
    framework = session.name.removeprefix("tests-")
    install(session, framework, "test", *(["equinox"] if framework == "jax" else []))
    session.run("pytest", *session.posargs, env={"ISOFORM_FRAMEWORKS": ALONE[framework]})


for framework in ALONE:
    nox.session(tests_alone, name=f"tests-{framework}")


@nox.session
def browser(session: nox.Session) -> None:
    """The report's page in a real Chromium (Debian: apt-get install chromium). `nox -s browser -- --screenshot results/<machine>/<date>`
    also takes a picture of that folder's page."""
    install(session, "test", "browser")
    session.run("pytest", "-m", "browser", "tests/browser", *session.posargs, env={"ISOFORM_FRAMEWORKS": "numpy"})


@nox.session
def mutants(session: nox.Session) -> None:
    """Plant faults in every implementation; each must be caught. Long."""
    install(session, "all", "test")
    session.run("python", "-m", "tests.mutants", *session.posargs)


@nox.session
def speed(session: nox.Session) -> None:
    """Each implementation against bare code in its own framework: `nox -s speed -- --impl torch`. Takes the machine for half an hour."""
    install(session, "all", "test")
    session.run("python", "-m", "tests.speed", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Rules, format and types."""
    install(session)  # the core's own types count too
    session.install("-c", "constraints.txt", "ruff", "mypy")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
