"""What holds for the project as a whole: its locks, its documents, and that the service stands without training."""

import ast
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

BASE = PROJECT["project"]["dependencies"]
OTEL = PROJECT["project"]["optional-dependencies"]["otel"]
SIGNATURES = PROJECT["project"]["optional-dependencies"]["signatures"]
TRAINING = PROJECT["project"]["optional-dependencies"]["training"]
DEVELOPMENT = PROJECT["dependency-groups"]["dev"]
BUILD = PROJECT["build-system"]["requires"]
LOCKS = {
    "service": BASE,
    "training": BASE + TRAINING,
    "otel": BASE + OTEL,
    "signatures": BASE + SIGNATURES,
    "development": BASE + OTEL + SIGNATURES + TRAINING + DEVELOPMENT,
    "build": BUILD,
}
# Imported beside the package that cannot be without them, and whose versions they follow.
PARTS = {
    "jsonschema-rs": "schemathesis",
    "googleapis-common-protos": "opentelemetry-exporter-otlp-proto-http",
    "markupsafe": "jinja2",
    "opentelemetry-api": "opentelemetry-sdk",
    "opentelemetry-exporter-http-transport": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-common": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-exporter-otlp-proto-common": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-proto": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry-semantic-conventions": "opentelemetry-sdk",
    "packaging": "pytest",
    "protobuf": "onnx",
    "pydantic-core": "pydantic",
    "starlette": "fastapi",
}
TRAINING_ONLY = ["tensorflow", "tensorflow-cpu", "keras", "onnx", "pandas", "pyarrow", "matplotlib"]


def pins(lock: str) -> Mapping[str, set[Version]]:
    """Every package of a lock with its versions: more than one where Python versions or platforms need others."""
    found: dict[str, set[Version]] = {}
    for entry in entries(lock):
        (specifier,) = entry.specifier
        assert specifier.operator == "==", entry
        found.setdefault(canonicalize_name(entry.name), set()).add(Version(specifier.version))
    return found


def entries(lock: str) -> list[Requirement]:
    """What a lock pins, entry by entry."""
    lines = (ROOT / "locks" / f"{lock}.txt").read_text().splitlines()
    return [Requirement(line.removesuffix("\\").strip()) for line in lines if line and not line.startswith((" ", "#"))]


def unsatisfied(requirements: list[str], pinned: Mapping[str, set[Version]]) -> list[str]:
    faults = []
    for requirement in map(Requirement, requirements):
        versions = pinned.get(canonicalize_name(requirement.name), set())
        if not versions or not all(version in requirement.specifier for version in versions):
            faults.append(f"{requirement}: pinned {sorted(map(str, versions)) or 'nowhere'}")
    return faults


@pytest.mark.parametrize("lock", LOCKS)
def test_each_lock_pins_every_direct_dependency_to_a_version_that_pyproject_allows(lock: str) -> None:
    assert unsatisfied(LOCKS[lock], pins(lock)) == [], "run `make lock`"


def test_a_lock_that_is_out_of_date_would_be_noticed() -> None:
    pinned = {"numpy": {Version("2.4.6"), Version("2.5.5")}}
    assert unsatisfied(["numpy>=2.5"], pinned) == ["numpy>=2.5: pinned ['2.4.6', '2.5.5']"]
    assert unsatisfied(["scipy"], pinned) == ["scipy: pinned nowhere"]


@pytest.mark.parametrize("lock", LOCKS)
def test_every_pin_has_hashes(lock: str) -> None:
    entries = re.split(r"\n(?=\S)", (ROOT / "locks" / f"{lock}.txt").read_text().strip())
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


def test_a_package_that_others_ask_for_with_extras_is_pinned_with_them() -> None:
    """Of one that is not, pip takes the newest version, whose hashes nobody has pinned."""
    named = {canonicalize_name(entry.name): entry.extras for entry in entries("development")}
    wanted = [
        (name, asked)
        for name in named
        for asked in map(Requirement, requirements_of(name))
        if asked.extras and any(asked.marker is None or asked.marker.evaluate({"extra": e}) for e in ["", *named[name]])
    ]
    assert {asked.name for _, asked in wanted} >= {"coverage"}
    assert [one for one in wanted if not one[1].extras <= named[canonicalize_name(one[1].name)]] == []


def requirements_of(name: str) -> list[str]:
    try:
        return requires(name) or []
    except PackageNotFoundError:  # it is for another platform or Python
        return []


@pytest.mark.parametrize(
    ("smaller", "larger"),
    [
        ("service", "training"),
        ("service", "otel"),
        ("service", "signatures"),
        ("training", "development"),
        ("otel", "development"),
        ("signatures", "development"),
    ],
)
def test_a_package_has_the_same_versions_in_a_larger_lock(smaller: str, larger: str) -> None:
    wide = pins(larger)
    assert {name: versions for name, versions in pins(smaller).items() if wide.get(name) != versions} == {}


def test_the_build_lock_can_be_installed_beside_the_others() -> None:
    build, development = pins("build"), pins("development")
    assert {name for name in build.keys() & development.keys() if build[name] != development[name]} == set()


def test_the_service_lock_holds_nothing_of_training() -> None:
    assert pins("service").keys() & set(TRAINING_ONLY) == set()


@pytest.mark.parametrize(
    ("package", "declared"),
    [
        ("service", BASE + OTEL + SIGNATURES),
        ("training", LOCKS["training"]),
        ("tests", LOCKS["development"]),
        ("benchmarks", LOCKS["training"]),
        ("chaos", LOCKS["development"]),
    ],
    ids=["service", "training", "tests", "benchmarks", "chaos"],
)
def test_every_library_that_is_imported_is_declared(package: str, declared: list[str]) -> None:
    own = {"service", "training", "tests", "benchmarks", "chaos"}
    installed = packages_distributions()
    used = {
        canonicalize_name(distribution)
        for module in imports(package) - own - set(sys.stdlib_module_names)
        for distribution in installed[module]
    }
    names = {canonicalize_name(Requirement(requirement).name) for requirement in declared}
    assert {name for name in used if PARTS.get(name, name) not in names} == set()


def imports(package: str) -> set[str]:
    """The top-level names that a package's modules import; those of other servers have environments of their own."""
    found = set()
    for file in (ROOT / package).rglob("*.py"):
        if "peers" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.partition(".")[0])
    return found


def test_the_lowest_python_of_the_project_is_the_one_that_the_tools_check_for() -> None:
    lowest = "3.11"
    assert SpecifierSet(PROJECT["project"]["requires-python"]) == SpecifierSet(f">={lowest}")
    assert PROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PROJECT["tool"]["ruff"]["target-version"] == "py" + lowest.replace(".", "")


def test_the_changelog_begins_with_the_version_of_the_project() -> None:
    found = re.search(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found is not None
    assert found[1] == PROJECT["project"]["version"]


def test_every_decision_record_is_in_the_index_under_its_own_title() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    records = sorted(file.name for file in folder.glob("[0-9]*.md"))
    assert re.findall(r"^\| \[\d{4}\]\(([^)]+)\)", index, re.MULTILINE) == records
    for name in records:
        assert (folder / name).read_text().startswith(f"# {name[:4]}: "), name


# Run in a fresh interpreter. A module that is None in sys.modules cannot be imported, as if it were not installed.
WITHOUT_TRAINING = """
import sys
sys.modules.update(dict.fromkeys({blocked!r}))
import service.__main__
from service.app import create_app
from service.settings import Settings
application = create_app(Settings.from_environment({{}}))
assert "/forecast" in application.openapi()["paths"]
"""


def test_the_service_is_assembled_where_only_its_own_lock_is_installed() -> None:
    allowed = pins("service").keys() | {"leadtime"}
    modules = {
        module
        for module, distributions in packages_distributions().items()
        if not allowed & {canonicalize_name(name) for name in distributions}
    }
    assert {"tensorflow", "keras", "onnx", "pandas", "pytest"} <= modules
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TRAINING.format(blocked=sorted(modules | {"training"}))],
        cwd=ROOT,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


FROM_THE_WHEEL = """
import numpy, service.app, training
from service.registry import Registry
model = Registry.open(None, service.app.BUNDLED).find("default", None)
windows = numpy.arange(48, dtype=numpy.float32).reshape(1, 48, 1)
print(service.app.__file__, training.__file__, model.engine.forecast(windows, 3).shape)
"""


def test_an_installed_wheel_forecasts_from_the_model_that_it_brings(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("leadtime-*.whl")
    installed = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    done = subprocess.run(
        [sys.executable, "-c", FROM_THE_WHEEL],
        cwd=tmp_path,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 2) == [
        str(installed / "service" / "app.py"),
        str(installed / "training" / "__init__.py"),
        "(1, 3, 1)\n",
    ]
    for part in ("service", "training"):
        here = {file.relative_to(ROOT) for file in (ROOT / part).rglob("*") if file.is_file()}
        packed = {file.relative_to(installed) for file in (installed / part).rglob("*")}
        assert {file for file in here if "__pycache__" not in file.parts} - packed == set()
