"""Documents are true: what they name exists, and what exists is named."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import click
import pytest
from dotenv import dotenv_values

import db.__main__ as database
from app.core.errors import TooManyFailedKeys
from app.core.keys.failed_keys import FAILURE_SECONDS, FAILURES_AT_ONCE, WAIT_SECONDS_MAX
from app.core.keys.keyring import MET_SECONDS
from app.core.model import PLANS
from app.core.process.settings import AdminSettings, DatabaseSettings, GatewaySettings, SettingsError, load, variables
from app.core.relay import headers
from tools import keygen, orgs, procfile
from tools.storm.report import HEADINGS
from tools.storm.scenarios import PROGRAMME

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
EXAMPLE = (ROOT / ".env.example").read_text()
KINDS: tuple[type[DatabaseSettings], ...] = (GatewaySettings, AdminSettings)
NAMES = {name for kind in KINDS for names in variables(kind).values() for name in names}


def test_env_example_names_every_variable() -> None:
    """`.env.example` has each variable that the settings read, once, and no other."""
    named = re.findall(r"^(?:# )?([A-Z][A-Z_]+)=", EXAMPLE, re.MULTILINE)
    assert sorted(named) == sorted(NAMES)


@pytest.mark.parametrize("kind", KINDS)
def test_env_example_has_the_defaults(
    kind: type[DatabaseSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The values in `.env.example` are the defaults: with or without them the settings are the same."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BACKEND_URLS", "api=http://localhost:3000")
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/gateway")
    monkeypatch.setenv("ADMIN_TOKENS", f"ops:owner:{'x' * 32}")
    without = load(kind)
    (tmp_path / ".env").write_text(EXAMPLE)
    assert load(kind) == without
    assert len(dotenv_values(tmp_path / ".env")) > 10


@pytest.mark.parametrize("kind", KINDS)
def test_env_example_shows_values_that_work(
    kind: type[DatabaseSettings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The examples of variables without a default are values that the settings take, but for the placeholder tokens."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ADMIN_TOKENS", f"ops:owner:{'x' * 32}")
    (tmp_path / ".env").write_text(re.sub(r"^# ([A-Z][A-Z_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE))
    assert load(kind).redis is not None


def test_env_example_has_no_token_that_works(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its ADMIN_TOKENS, uncommented and left as it is, lets nobody in: a token that everybody can read is none."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".env").write_text(re.sub(r"^# ([A-Z][A-Z_]+=)", r"\1", EXAMPLE, flags=re.MULTILINE))
    with pytest.raises(SettingsError) as refused:
        load(AdminSettings)
    assert [problem.partition(":")[0] for problem in refused.value.problems] == ["ADMIN_TOKENS"]


def test_readme_names_every_variable() -> None:
    """The README's table has each variable that the settings read."""
    table = README.partition("## Configuration")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([A-Z][A-Z_]+)`", table)) >= NAMES


def test_readme_commands_exist() -> None:
    """Every command that the README shows is there: scripts, modules, and the verbs of the modules."""
    for script in re.findall(r"\btools/(\w+)\b(?!\.)", README):
        assert (ROOT / "tools" / script).exists(), script
    for module in re.findall(r"python -m ([\w.]+)", README):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def verbs(group: object) -> set[str]:
    assert isinstance(group, click.Group)
    return set(group.commands)


@pytest.mark.parametrize(
    ("module", "group"), [("db", database.main), ("tools.keygen", keygen.main), ("tools.orgs", orgs.main)]
)
def test_readme_names_every_verb(module: str, group: object) -> None:
    """The README's table of commands has each verb of each command, and only those."""
    (row,) = re.findall(rf"^\| `python -m {re.escape(module)} (.*?) \|", README, re.MULTILINE)
    assert set(re.findall(r"[a-z-]+", row)) == verbs(group)


def test_readme_links_lead_somewhere() -> None:
    """Relative links of the README lead to files."""
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_security_names_tests_that_exist() -> None:
    """Every test and file that SECURITY.md leans on is there."""
    text = (ROOT / "SECURITY.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 20
    for path, test in named:
        source = (ROOT / path).read_text()
        assert not test or re.search(rf"^(async )?def {test}\(", source, re.MULTILINE), f"{path}::{test}"


def test_security_has_the_figures_that_apply() -> None:
    """The figures of SECURITY.md's bucket of wrong keys, and its answer, are those of the code."""
    text = (ROOT / "SECURITY.md").read_text().replace("\n", " ")
    assert f"may present {FAILURES_AT_ONCE} different wrong keys, then one a second" in text
    assert f"with `Retry-After` ({WAIT_SECONDS_MAX:.0f} seconds at most)" in text
    assert (FAILURE_SECONDS, MET_SECONDS) == (1.0, 86_400.0)
    assert f"429 `{TooManyFailedKeys(1).message}`" in text


def test_security_commands_exist() -> None:
    """The commands, variables and fields of SECURITY.md are real ones."""
    text = (ROOT / "SECURITY.md").read_text()
    for module in re.findall(r"python -m ([\w.]+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").exists(), module
    assert set(re.findall(r"`([A-Z]+_[A-Z_]+)(?:=\w+)?`", text)) - {"HTTP_PROXY"} <= NAMES
    ends_here = re.findall(r"^\| (.+?) \|.*\| nothing: (?:it|they) ends? here", text, re.MULTILINE)
    for name in {name.lower() for cell in ends_here for name in re.findall(r"`([A-Za-z-]+)`", cell)}:
        assert headers.to_backend([(name.encode(), b"x")]) == [], name


def test_readme_plans_are_the_plans() -> None:
    """The README's plans have the numbers that are applied."""
    for tier, limits in PLANS.items():
        assert f"| {tier} | {limits.per_minute:,} | {limits.per_day:,} | {limits.burst:,} |" in README


def test_http_bounds_are_the_bounds() -> None:
    """Each row of docs/http-bounds.md has the value that its constant, or its variable's default, really has."""
    text = (ROOT / "docs" / "http-bounds.md").read_text()
    rows = re.findall(r"^\|[^|]+\| ([\d,]+) \|.*\| `([\w.]+)` \|$", text, re.MULTILINE)
    assert len(rows) == text.count("\n| ") - 6, "a row that is not understood"
    fields = {name: field for field, names in variables(GatewaySettings).items() for name in names}
    for value, place in rows:
        module, _, name = place.rpartition(".")
        default = GatewaySettings.model_fields[fields[name]].default if not module else None
        known = default if not module else getattr(importlib.import_module(module), name)
        assert float(value.replace(",", "")) == known, place


def test_decisions_explain_every_dependency() -> None:
    """docs/decisions.md has a sentence on each library that pyproject.toml asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    text = (ROOT / "docs" / "decisions.md").read_text().lower()
    for requirement in wanted:
        (name,) = re.findall(r"^[A-Za-z0-9-]+", requirement)
        assert f"**{name.lower()}**" in text, name


def test_requirements_pin_every_dependency() -> None:
    """requirements.txt pins each run-time dependency to a version that pyproject.toml allows at least by its start."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    for requirement in project["dependencies"]:
        name, least = re.findall(r"^([A-Za-z0-9-]+)(?:\[\w+\])?>=([0-9.]+)", requirement)[0]
        assert tuple(map(int, pinned[name].split("."))) >= tuple(map(int, least.split("."))), name


FAILURES = (ROOT / "docs" / "failure-modes.md").read_text()


def test_failure_modes_has_the_whole_programme() -> None:
    """The figures in docs/failure-modes.md are a row for each scenario of tools/chaos, under its headings."""
    table = FAILURES.partition("<!-- tools/chaos --markdown -->")[2].strip().splitlines()
    assert table[0] == f"| {' | '.join(HEADINGS)} |"
    assert [row.split(" | ")[0].removeprefix("| ") for row in table[2:]] == [scenario.text for scenario in PROGRAMME]


@pytest.mark.parametrize(
    "message",
    [
        "Rate limits: deciding without Redis (",
        "Rate limits: Redis decides again after ",
        "it has lost its data",
        "is up again",
        "the server is silent",
        "PostgreSQL is away: ",
        "Changes cannot be read from the database: ",
        "API keys that are not in memory cannot be checked: ",
        "[RefreshManager] Refresh failed, all keys stay in memory: ",
        "Last uses of API keys are not recorded for now: ",
        "requests did not end within ",
        "authentication service temporarily unavailable",
    ],
)
def test_failure_modes_quotes_what_is_said(message: str) -> None:
    """What docs/failure-modes.md tells to look for in the log is what the code says."""
    assert message in FAILURES
    assert any(message in path.read_text() for path in (ROOT / "app").rglob("*.py"))


def test_procfile() -> None:
    """The Procfile has the three processes of the contract, and what runs here are those whose module exists."""
    assert (
        ROOT / "Procfile"
    ).read_text() == "release: python -m db migrate\nweb: python -m app\nadmin: python -m admin\n"
    assert procfile.processes(ROOT / "Procfile") == {"web": "python -m app", "admin": "python -m admin"}
