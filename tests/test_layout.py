import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("encoders", "pipeline", "trainer", "jobs")
SHARED = {path.stem for path in (ROOT / "avdata").glob("*.py")}
FORBIDDEN = {"encoders": {"ray"}, "pipeline": {"ray"}, "trainer": {"ray"}, "jobs": set[str]()}
LONGEST_FILE, LONGEST_FUNCTION, LONGEST_LINE = 350, 60, 120


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Dotted names of all that a file imports, at its top or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tracked() -> list[Path]:
    """Every file of the project that git does not ignore."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for path in (ROOT / line for line in listed.splitlines()) if path.is_file()]


@pytest.mark.parametrize("number", range(len(PACKAGES)), ids=PACKAGES)
def test_a_package_uses_only_those_below_it(number: int) -> None:
    name = PACKAGES[number]
    allowed = {*SHARED, *PACKAGES[: number + 1]}
    for path in sources(name):
        for module in imported(path):
            parts = module.split(".")
            assert parts[0] not in FORBIDDEN[name], f"{path} imports {module}"
            if parts[0] == "avdata" and len(parts) > 1:
                assert parts[1] in allowed, f"{path} imports {module}"


def test_shared_modules_use_no_package() -> None:
    for path in sources("avdata"):
        for module in imported(path):
            parts = module.split(".")
            assert parts[:1] != ["avdata"] or parts[1:2] == [] or parts[1] in SHARED, (
                f"{path} imports {module}"
            )


def test_nothing_is_imported_by_its_folders_bare_name() -> None:
    """In a checkout it would work, and give second copies of every class."""
    for path in sources("avdata", "tests", *PACKAGES):
        bare = [name for name in imported(path) if name.split(".")[0] in PACKAGES]
        assert bare == [], f"{path} imports {bare}"


def test_every_package_is_listed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in sources("avdata", *PACKAGES)}
    assert all((folder / "__init__.py").exists() for folder in folders)
    dotted = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    named = {name if name == "avdata" else f"avdata.{name}" for name in dotted}
    assert sorted(named) == sorted(listed)


def test_no_file_knows_this_machine() -> None:
    places = re.compile(r"(?<![\w.}/])/(work|root|home|tmp/dev|Users)/")
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found = [match.group() for match in places.finditer(text)]
        assert path == Path(__file__) or found == [], f"{path}: {found}"


def test_files_and_functions_are_short() -> None:
    for path in sources("avdata", "tests", *PACKAGES):
        text = path.read_text()
        assert len(text.splitlines()) <= LONGEST_FILE, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= LONGEST_FUNCTION, f"{path}: {node.name} has {length} lines"


def test_lines_of_documents_are_short() -> None:
    """A row of a table is one line, however long."""
    for path in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            assert line.startswith("|") or len(line) <= LONGEST_LINE, f"{path}:{number}"


def test_nothing_is_left_to_do_in_comments() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
    for path in sources("avdata", "tests", *PACKAGES):
        assert not marks.search(path.read_text()), path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a clean copy of what git has, without network."""
    if find_spec("setuptools") is None or find_spec("pip") is None:
        pytest.skip("building a wheel without network needs setuptools and pip here")
    folder = tmp_path_factory.mktemp("wheel")
    for path in tracked():
        copy = folder / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    options = ["--no-deps", "--no-build-isolation", "--quiet", "-w", str(folder)]
    command = [sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_a_wheel_has_every_module_and_data_file_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    modules = {path.relative_to(ROOT) for path in sources("avdata", *PACKAGES)}
    data = {
        path.relative_to(ROOT)
        for folder in ("avdata", *PACKAGES)
        for suffix in ("yaml", "html", "css", "txt", "typed")
        for path in (ROOT / folder).rglob(f"*.{suffix}")
    }
    assert {path.name for path in data} >= {"policy.yaml", "page.html", "page.css", "py.typed"}
    inside = {str(p) if p.parts[0] == "avdata" else f"avdata/{p}" for p in modules | data}
    assert names == inside


def test_a_wheel_works_far_from_the_checkout(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = (
        "import avdata.trainer.data.plan, avdata.jobs.cli\n"
        "from avdata.pipeline.policy import load_policy\n"
        "print(avdata.jobs.cli.__file__, len(load_policy().rules) > 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.stdout.split() == [str(tmp_path / "site" / "avdata" / "jobs" / "cli.py"), "True"]
