"""Rules of the house that a linter of lines does not know: layers, self-containedness, size, words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys

import pytest

import bigmm

IGNORED = {".git", ".venv", ".cache", ".hypothesis", "__pycache__", "build", "dist", "node_modules"}
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".json", ".cff", ".R", ".sh", ""}
BANNED_MODULES = re.compile(r"(^|_)(utils?|helpers?|common|managers?)($|_)")


def files(project, *suffixes):
    for path in sorted(project.rglob("*")):
        parts = set(path.relative_to(project).parts)
        if path.is_file() and path.suffix in suffixes and not parts & IGNORED and not parts & _hidden(parts):
            yield path


def _hidden(parts):
    return {
        part
        for part in parts
        if part.startswith(".") and part not in (".ci", ".github", ".gitignore", ".pre-commit-config.yaml")
    }


def modules(project):
    return [(path, path.read_text()) for path in files(project / "bigmm", ".py")]


def test_imports_point_down(project):
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_nothing_points_outside_the_repository(project):
    outside = re.compile(r"/work/|/home/\w|/root/|file:///")
    found = [
        f"{path.relative_to(project)}:{number}: {line.strip()[:100]}"
        for path in files(project, *TEXT)
        if path.name != "test_project.py"
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if outside.search(line)
    ]
    assert found == []


def test_links_in_documents_lead_somewhere(project):
    broken = [
        f"{path.relative_to(project)}: {target}"
        for path in files(project, ".md")
        for target in re.findall(r"\]\(([^)#\s]+)", path.read_text())
        if "://" not in target and not (path.parent / target).exists()
    ]
    assert broken == []


@pytest.mark.parametrize("folder", ["decisions", "extending", "theory"])
def test_each_page_is_listed(project, folder):
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (project / "docs" / folder / "README.md").read_text()))
    assert {path.name for path in (project / "docs" / folder).glob("*.md")} - {"README.md"} <= listed


def test_no_user_text_is_evaluated(project):
    """No eval, exec, compile or pickle.load anywhere: formulas are parsed, saved fits are data."""
    banned = {"eval", "exec", "compile", "__import__"}
    found = []
    for path, text in modules(project):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in banned:
                found.append(f"{path.name}:{node.lineno} {node.func.id}")
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None)]
                found += [
                    f"{path.name}:{node.lineno} {name}" for name in names if name in ("pickle", "marshal", "shelve")
                ]
    assert found == []


def test_a_file_holds_one_concept(project):
    long = {path.name: text.count("\n") for path, text in modules(project) if text.count("\n") > 500}
    assert long == {}
    vague = [str(path) for path, _ in modules(project) if BANNED_MODULES.search(path.stem)]
    assert vague == []


def test_our_words(project):
    """endog and exog match no paper; the table of other packages' names has to list them."""
    texts = [(path, text) for path, text in modules(project) if path.name != "arguments.py"]
    found = [path.name for path, text in texts if re.search(r"\b(endog|exog)", text)]
    assert found == []


def test_every_public_function_is_described(project):
    silent = []
    for path, text in modules(project):
        for node in ast.parse(text).body:
            public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(project)}:{node.lineno} {node.name}")
    assert silent == []


def test_a_newcomer_reads_one_screen(project):
    assert len((project / "CONTRIBUTING.md").read_text().splitlines()) <= 60


def test_the_citation_knows_this_version(project):
    assert f"\nversion: {bigmm.__version__}\n" in (project / "CITATION.cff").read_text()


def test_the_workflow_runs_what_a_clone_runs(project):
    assert "- run: .ci/run\n" in (project / ".github" / "workflows" / "check.yml").read_text()


def test_the_changelog_knows_this_version(project):
    headings = re.findall(r"^## (\S+)", (project / "CHANGELOG.md").read_text(), flags=re.M)
    assert headings[0] == bigmm.__version__


@pytest.mark.parametrize("target", ["demo", "test", "interpreted", "dials", "check", "check-slow", "bench", "clean"])
def test_make_knows_its_targets(project, target):
    done = subprocess.run(["make", "--dry-run", target], cwd=project, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
